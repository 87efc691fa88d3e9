"""The promotion job: its exit codes, what it prints, what it moves."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from jobs import promote, train
from tests.jobs.conftest import Workplace, make_workplace, one_error, working_in

LIMITS: dict[str, Any] = {
    "audit": "ignored",
    "days": {"rows": 100, "positives": 20},
    "comparison": {"logloss_margin": 0.02, "auc_margin": 0.02},
    "calibration": {"lowest": 0.5, "highest": 2.0},
    "latency": None,
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Workplace:
    """A training that learned something."""
    place = make_workplace(tmp_path_factory.mktemp("learned"), samples)
    with working_in(place.folder):
        assert train.main(["--config", str(place.config), "epochs=6", "optimizer.learning_rate=1e-2", "test_split=null"]) == 0
        client = mlflow.MlflowClient()
        first = client.get_model_version("mian", "1")
        client.create_model_version("mian", first.source, first.run_id)
    return place


@pytest.fixture
def store(learned: Workplace, tmp_path: Path) -> Iterator[str]:
    """A copy of the store, which has the model as versions 1 and 2, and a configuration beside it."""
    with working_in(tmp_path):
        shutil.copy(learned.folder / "mlflow.db", "own.db")
        Path("promotion.yaml").write_text(yaml.safe_dump({"samples": str(learned.samples), **LIMITS}))
        yield f"sqlite:///{tmp_path}/own.db"


@pytest.fixture
def run(store: str) -> Callable[..., int]:
    def promote_(*arguments: str) -> int:
        command = ["--config", "promotion.yaml", "--tracking-uri", store, *arguments]
        return promote.main(command if "--model" in arguments else ["--model", "mian", *command])

    return promote_


def champion(store: str) -> str | None:
    found = mlflow.MlflowClient(store).get_registered_model("mian").aliases.get("champion")
    return None if found is None else str(found)


def test_a_version_is_promoted_the_next_takes_its_place_and_a_rollback_brings_it_back(
    run: Callable[..., int], store: str, capsys: Any
) -> None:
    assert run("--report", "decision.html") == 0
    assert champion(store) == "1"
    assert "Promoted: version 1 of mian passes every gate and serves as champion" in capsys.readouterr().out
    assert "Promoted: version 1" in Path("decision.html").read_text()
    assert run() == 0
    assert "version 1 is champion already" in capsys.readouterr().out

    assert run("--candidate", "2", "--dry-run") == 0
    assert champion(store) == "1"
    assert "This was a dry run" in capsys.readouterr().out
    assert run("--candidate", "2") == 0
    assert champion(store) == "2"
    assert run("--rollback") == 0
    assert champion(store) == "1"
    capsys.readouterr()
    assert run("--candidate", "2") == 2, "it was rolled back"
    assert "rollback" in capsys.readouterr().out
    assert run("--rollback") == 1
    assert "no version before 1" in one_error(capsys)


def test_a_refusal_says_why_and_what_to_do_and_moves_nothing(run: Callable[..., int], store: str, capsys: Any) -> None:
    assert run("audit=required") == 2
    assert champion(store) is None
    said = capsys.readouterr().out
    assert "Refused: version 1 of mian does not serve; there is no champion yet." in said
    assert "Audit the samples (spark-submit jobs/audit_samples.py), then ask again" in said
    version = mlflow.MlflowClient(store).get_model_version("mian", "1")
    assert (version.tags["mian.promotion"], version.tags["mian.promotion.reasons"]) == ("refused", "audit")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "none"], "none"),
        (["--candidate", "7"], "7"),
        (["--candidate", "no-such"], "no-such"),
        (["samples=nowhere"], "nowhere/contract.json: no such file"),
        (["comparison.margin=1"], "comparison.margin"),
        (["alias=a/b"], "alias"),
        (["alias=latest"], "MLflow takes names of letters"),
        (["alias=v7"], "MLflow takes names of letters"),
        (["alias=meine beste"], "MLflow takes names of letters"),
        (["threads=100000"], "threads: Input should be less than or equal to 1024"),
        (["slices.item_field=article"], "slices.item_field: article: the candidate has no such field"),
        (["days.fewest=9"], "fewest: 9 is more than most, 7"),
        (["--report", "page.txt"], "--report"),
        (["slices.fields=[user_visits]"], "slices.fields: user_visits"),
    ],
)
def test_what_cannot_be_judged_is_one_error(
    run: Callable[..., int], store: str, arguments: list[str], said: str, capsys: Any
) -> None:
    assert run(*arguments) == 1
    assert said in one_error(capsys)
    assert champion(store) is None


@pytest.mark.parametrize("other", [["--dry-run"], ["--report", "page.html"]], ids=["dry run", "report"])
def test_a_rollback_is_no_dry_run(run: Callable[..., int], store: str, other: list[str], capsys: Any) -> None:
    assert run() == 0
    assert run("--candidate", "2") == 0
    capsys.readouterr()
    assert run("--rollback", *other) == 1
    assert f"takes no {other[0]}" in one_error(capsys)
    assert champion(store) == "2"


def test_wrong_arguments_are_no_refusal(run: Callable[..., int], store: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--candidates", "2")
    assert ended.value.code == 1


def test_a_store_that_is_not_there_is_one_error(run: Callable[..., int], capsys: Any) -> None:
    assert run("--tracking-uri", "sqlite:///nowhere.db") == 1
    assert one_error(capsys)
    assert not Path("nowhere.db").exists()
