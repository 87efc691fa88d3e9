"""What the job says and passes on; how candidates are scored is in tests/pipeline/scoring."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import score
from mian.serving.mlflow_export import log_servable
from mian.serving.servable import servable_digest
from mian.tracking.registry import fetch_model
from tests.factories import read_examples
from tests.jobs.conftest import one_error, working_in
from tests.support.candidate_logs import DAYS, Shop, build_shop, write_candidates, write_pages
from tests.support.stores import new_store

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose model is version 1 of ``mian``, and ``@champion``; its configuration is ``data.yaml``."""
    folder = tmp_path_factory.mktemp("shop")
    write_pages(folder)
    write_candidates(folder)
    shop = build_shop(spark, folder)
    settings = shop.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    (folder / "data.yaml").write_text(yaml.safe_dump(settings))
    uri = new_store(folder / "mlflow.db")
    with working_in(folder):
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(experiment_id="0"):  # trainings of other tests set one of another store
            example = read_examples(Path(shop.config.samples), shop.contract, "test").head(3)
            log_servable(shop.model, example[[field.column for field in shop.contract.fields]], "mian")
        mlflow.MlflowClient().set_registered_model_alias("mian", "champion", "1")
    return shop


@pytest.fixture
def job(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Scores the last day's candidates by the champion, unless told otherwise."""
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)  # it is that of all tests

    def run(*more: str, model: str = "models:/mian@champion", impressions: Path = shop.candidates) -> int:
        place = ["--config", str(shop.folder / "data.yaml"), "--impressions", str(impressions)]
        place += ["--output", str(tmp_path / "scores")]  # Spark's own folder is that of the first test
        uri = ["--tracking-uri", f"sqlite:///{shop.folder}/mlflow.db"]
        return score.main(["--model", model, *place, *uri, "--from", str(DAYS[-1]), *more])

    with working_in(tmp_path):
        yield run


def test_the_champion_scores_candidates_and_says_its_version(job: Any, tmp_path: Path, capsys: Any) -> None:
    assert job("--scored-at", "2026-03-07T05:00:00+01:00") == 0
    printed = capsys.readouterr().out
    found = pd.read_parquet("scores")
    assert printed.splitlines() == [
        f"{tmp_path}/scores: 1 days scored, 0 finished before and unchanged",
        f"  {len(found):,} candidates scored by mian/1: {DAYS[-1]}",
    ]
    assert set(found["model_version"]) == {"mian/1"}
    assert set(found["scored_at"]) == {pd.Timestamp("2026-03-07T04:00:00Z")}
    assert job(model="models:/mian/1") == 0, "the alias is that version"
    assert capsys.readouterr().out.strip() == f"{tmp_path}/scores: 0 days scored, 1 finished before and unchanged"


def test_the_moment_is_that_at_which_the_run_began(job: Any) -> None:
    before = dt.datetime.now(dt.timezone.utc)
    assert job() == 0
    (moment,) = set(pd.read_parquet("scores")["scored_at"])
    assert before <= moment <= dt.datetime.now(dt.timezone.utc)


@pytest.mark.parametrize(
    ("more", "changes", "said"),
    [
        (["--to", str(DAYS[0])], {}, f"--to {DAYS[0]} is before --from {DAYS[-1]}"),
        ([], {"model": "models:/mian@nobody"}, "nobody"),
        ([], {"model": "models:/other/1"}, "other"),
        ([], {"model": "nowhere"}, "nowhere: no model that mian trained"),
        ([], {"impressions": Path("/nowhere")}, "log.impressions: no such path: /nowhere"),
        (["history.length=4"], {}, "history.length is 4, not 5"),
        (["nonsense=4"], {}, "unknown key 'nonsense'"),
    ],
)
def test_what_cannot_be_scored_is_one_error(job: Any, capsys: Any, more: list[str], changes: dict[str, Any], said: str) -> None:
    assert job(*more, **changes) == 1
    assert said in one_error(capsys)
    assert not Path("scores").exists()


def test_a_moment_that_is_none_is_an_error_of_the_arguments(job: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        job("--scored-at", "tonight")
    assert ended.value.code == 2
    assert "'tonight' is not a moment; write it as in 2026-01-31T04:00:00Z" in capsys.readouterr().err


def test_a_model_is_called_by_its_version_its_training_or_its_files(shop: Shop, tmp_path: Path) -> None:
    with working_in(shop.folder):
        mlflow.set_tracking_uri(f"sqlite:///{shop.folder}/mlflow.db")
        for uri in ("models:/mian@champion", "models:/mian/1"):
            copy = tmp_path / uri.replace("/", "-")
            copy.mkdir()
            folder, version = fetch_model(uri, copy)
            assert version == "mian/1"
            assert folder.is_relative_to(copy)
            assert servable_digest(folder) == servable_digest(shop.model)
    assert fetch_model(str(shop.model), tmp_path) == (shop.model, servable_digest(shop.model)[:16])
