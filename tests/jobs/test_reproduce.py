"""Experiments from their configuration to their report: on one process, on several, on ranks, and killed on the way."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from jobs import reproduce
from mian.experiments.trials import RESULT, Result, Trial
from mian.tracking.registry import load_model
from tests.factories import SMALL_MODEL
from tests.jobs.conftest import one_error, working_in
from tests.launcher import ENVIRONMENT, ROOT, on_ranks
from tests.support.stores import new_store

SMALL = {name: value for name, value in SMALL_MODEL.items() if name != "dropout"}
#: Trainings of the grid: 2 of LR, which has no dropout, and 4 of each other; and one a line with the second seed.
TRAININGS = 2 + 4 + 4 + 4 + 4


@dataclass(frozen=True)
class Laboratory:
    """A folder with an experiment's configuration."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "experiment.yaml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(ROOT / "jobs" / "reproduce.py"), "--config", str(self.config)]

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | ENVIRONMENT
        return subprocess.Popen(
            self.command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def ended(self) -> dict[str, int]:
        """When the trainings ended that have, by their folder."""
        return {path.parent.name: path.stat().st_mtime_ns for path in self.out.glob(f"trials/*/{RESULT}")}

    def metrics(self) -> pd.DataFrame:
        return pd.read_csv(self.out / "report" / "metrics.csv")

    def runs(self) -> list[mlflow.entities.Run]:
        client = mlflow.MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def make_laboratory(folder: Path, samples: Path, **changes: Any) -> Laboratory:
    values = {
        "name": "small",
        "title": "A small experiment",
        "samples": str(samples),
        "output": str(folder / "out"),
        "seeds": [1, 2],
        "training": {"batch_size": 64, "epochs": 1, "threads": 1, "device": "cpu", "checkpoint": {"every_steps": 5}},
        "grid": {"optimizer.learning_rate": [1e-3, 1e-2], "model.options.dropout": [0.0, 0.2]},
        "models": {
            "LR": {"name": "lr"},
            "DIN": {"name": "din", "options": {"embedding_dim": 4, "mlp": [8]}},
            "MIAN": {"name": "mian", "options": SMALL},
        },
        "ablations": {"no Transformer": {"name": "mian", "options": {**SMALL, "transformer": "none"}}},
        "cases": 5,
        "timed_seconds": 0.02,
        "tracking": {"uri": new_store(folder / "mlflow.db"), "experiment": "reproduced", "registered_name": None},
    }
    laboratory = Laboratory(folder)
    laboratory.config.write_text(yaml.safe_dump(values | changes, sort_keys=False))
    return laboratory


@pytest.fixture
def laboratory(tmp_path: Path, samples: Path) -> Iterator[Laboratory]:
    place = make_laboratory(tmp_path, samples)
    with working_in(tmp_path):
        yield place


@pytest.fixture
def small_laboratory(tmp_path: Path, samples: Path) -> Iterator[Laboratory]:
    """Of two lines, one point and one seed."""
    models = {"LR": {"name": "lr"}, "DIN": {"name": "din"}, "MIAN": {"name": "mian", "options": SMALL}}
    place = make_laboratory(tmp_path, samples, models=models, ablations={}, seeds=[1], grid={"optimizer.learning_rate": [1e-3]})
    with working_in(tmp_path):
        yield place


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Laboratory:
    """An experiment that nothing disturbed; tests leave it as it is."""
    place = make_laboratory(tmp_path_factory.mktemp("done"), samples)
    with working_in(place.folder):
        assert reproduce.main(["--config", str(place.config)]) == 0
    return place


def test_the_report_has_every_table_and_figure(done: Laboratory) -> None:
    report = done.out / "report"
    text = (report / "report.md").read_text()
    for title in ("Comparison with the peers", "What MIAN is without its parts", "Where the models differ", "Time and size"):
        assert f"## {title}" in text
    assert "nan" not in text
    pictures = {"differences.png", "convergence.png", "attention.png", "slices-1.png", "slices-2.png"}
    assert {path.name for path in report.glob("*.png")} == pictures
    assert all(f"]({name})" in text for name in pictures)
    page = (report / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not [word for word in ("<script", "<link", "<a ", 'src="http') if word in page]
    for line in ("LR", "DIN", "MIAN", "no Transformer"):
        assert f"<td>{line}</td>" in page
    metrics = done.metrics()
    assert set(zip(metrics["variant"], metrics["seed"], strict=True)) == {
        (line, seed) for line in ("LR", "DIN", "MIAN", "no Transformer") for seed in (1, 2)
    }
    assert metrics["auc"].between(0.5, 1.0).all()


def test_trainings_are_runs_within_one_and_only_chosen_models_stay(done: Laboratory) -> None:
    (above,) = [run for run in done.runs() if "mlflow.parentRunId" not in run.data.tags]
    below = [run for run in done.runs() if run.info.run_id != above.info.run_id]
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {above.info.run_id}
    assert len(below) == len(done.ended()) == TRAININGS
    assert {run.info.status for run in done.runs()} == {"FINISHED"}
    assert above.info.run_name == "small"
    names = {run.info.run_name for run in below}
    assert "DIN learning_rate=0.01 dropout=0.2 seed=1" in names
    assert all("best_validation_logloss" in run.data.metrics for run in below)
    assert len(list(done.out.glob("trials/*/model"))) == 4 * 2
    assert load_model(str(next(done.out.glob("trials/din-*/model")))).model is not None
    assert not list(done.out.glob("trials/*/checkpoints"))


def test_once_more_trains_nothing_and_says_the_same(done: Laboratory, tmp_path: Path) -> None:
    again = Laboratory(tmp_path)
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    again.config.write_text(done.config.read_text().replace(str(done.folder), str(tmp_path)))
    before = again.ended()
    text = (again.out / "report" / "report.md").read_text()
    with working_in(tmp_path):
        assert reproduce.main(["--config", str(again.config)]) == 0
    assert again.ended() == before
    assert (again.out / "report" / "report.md").read_text() == text


@pytest.mark.long
def test_killed_and_started_again_it_redoes_no_training_that_ended(done: Laboratory, laboratory: Laboratory) -> None:
    drawn = random.Random(os.environ.get("MIAN_KILL_SEED", "0"))
    for _ in range(2):
        with laboratory.start() as process:
            target = len(laboratory.ended()) + drawn.randrange(2, 6)
            while len(laboratory.ended()) < target:
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                time.sleep(0.02)
            time.sleep(drawn.random() / 2)
            process.kill()
        before = laboratory.ended()
        assert 0 < len(before) < TRAININGS
    with laboratory.start() as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    after = laboratory.ended()
    assert len(after) == TRAININGS
    assert {name: after[name] for name in before} == before
    pd.testing.assert_frame_equal(laboratory.metrics(), done.metrics(), rtol=0, atol=0)


@pytest.mark.long
def test_sigterm_ends_it_with_its_own_code_and_it_goes_on(laboratory: Laboratory) -> None:
    with laboratory.start() as process:
        while not laboratory.ended():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        output = process.communicate()[0]
    assert process.returncode == 75, output
    before = laboratory.ended()
    assert 0 < len(before) < TRAININGS
    assert {run.info.status for run in laboratory.runs()} == {"FINISHED", "KILLED"}
    assert reproduce.main(["--config", str(laboratory.config), "--no-report"]) == 0
    assert len(laboratory.ended()) == TRAININGS
    assert before.items() <= laboratory.ended().items()
    assert not (laboratory.out / "report").exists()


@pytest.mark.long
def test_two_at_once_share_the_trainings(done: Laboratory, laboratory: Laboratory) -> None:
    with laboratory.start() as one, laboratory.start() as other:
        said = [process.communicate()[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    trained = [[line for line in text.splitlines() if "/out/trials/" in line] for text in said]
    assert sum(map(len, trained)) == TRAININGS
    assert all(trained)
    pd.testing.assert_frame_equal(laboratory.metrics(), done.metrics(), rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.ranks
def test_on_two_ranks_each_training_is_theirs_together(small_laboratory: Laboratory) -> None:
    program = ROOT / "jobs" / "reproduce.py"
    launched = on_ranks(2, program, "--config", small_laboratory.config, folder=small_laboratory.folder)
    assert launched.code == 0, launched.output
    assert len(small_laboratory.ended()) == 3
    assert {run.data.params.get("ranks") for run in small_laboratory.runs()} == {None, "2"}
    assert len(small_laboratory.metrics()) == 3


def test_a_point_whose_loss_is_no_number_is_left_out(small_laboratory: Laboratory) -> None:
    rates = "grid={optimizer.learning_rate: [1.0e-3, 1.0e+30]}"
    assert reproduce.main(["--config", str(small_laboratory.config), "--no-report", rates]) == 0
    results = [path.read_text() for path in small_laboratory.out.glob(f"trials/*/{RESULT}")]
    assert len(results) == 6
    assert len([text for text in results if "the loss or a gradient is no number" in text]) == 2
    assert len(list(small_laboratory.out.glob("trials/*/model"))) == 3
    assert not list(small_laboratory.out.glob("trials/*/tracking")), "failed ones are recorded as well"


@pytest.mark.parametrize("back", ["before the last training ends", "later"])
def test_a_training_at_whose_end_the_store_is_away_is_recorded_later(
    small_laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    database = small_laboratory.folder / "mlflow.db"
    keep, held = Trial.keep, [b""]

    def away(trial: Trial, result: Result) -> None:
        keep(trial, result)
        if not held[0]:
            held[0] = database.read_bytes()
            database.write_bytes(held[0][:100] + b"damaged" * 5000)
        elif back != "later" and len(small_laboratory.ended()) == 3:
            database.write_bytes(held[0])

    monkeypatch.setattr(Trial, "keep", away)
    command = ["--config", str(small_laboratory.config), "--no-report"]
    assert reproduce.main(command) == 0
    if back == "later":
        assert list(small_laboratory.out.glob("trials/*/tracking"))
        database.write_bytes(held[0])
        assert reproduce.main(command) == 0
    assert not list(small_laboratory.out.rglob("tracking"))
    (above,) = [run for run in small_laboratory.runs() if "mlflow.parentRunId" not in run.data.tags]
    below = [run for run in small_laboratory.runs() if run.info.run_id != above.info.run_id]
    assert [run.data.tags["mlflow.parentRunId"] for run in below] == [above.info.run_id] * 3
    assert {run.info.status for run in small_laboratory.runs()} == {"FINISHED"}
    assert all("best_validation_logloss" in run.data.metrics for run in below)


def test_a_line_that_fails_everywhere_is_an_error(small_laboratory: Laboratory, capsys: Any) -> None:
    rates = "grid={optimizer.learning_rate: [1.0e+30]}"
    assert reproduce.main(["--config", str(small_laboratory.config), "--no-report", rates]) == 1
    assert "take lower learning rates" in one_error(capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("treatmnt=MIAN", "unknown key 'treatmnt'; did you mean 'treatment'?"),
        ("training.batch=3", "batch"),
        ("samples=/nowhere", "/nowhere"),
        ("truth=/nowhere", "/nowhere: no table of true probabilities"),
    ],
)
def test_a_wrong_configuration_is_told_once_and_nothing_is_left(
    laboratory: Laboratory, capsys: Any, change: str, said: str
) -> None:
    assert reproduce.main(["--config", str(laboratory.config), change]) == 1
    assert said in one_error(capsys)
    assert not laboratory.ended()
