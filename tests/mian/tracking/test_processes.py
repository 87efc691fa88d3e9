"""Several processes and one tracking store: at once, and one after another that was killed."""

import errno
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from pyspark import SparkContext
from pyspark.sql import SparkSession
from sqlalchemy.exc import OperationalError

from mian.config import TrackingConfig
from mian.tracking.journal import Journal
from mian.tracking.tracker import Tracker
from tests.factories import CONTRACTS
from tests.support.stores import new_store
from tests.support.timeouts import seconds

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _as_a_process_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    monkeypatch.chdir(tmp_path)


def begun(uri: str, folder: str, **config: Any) -> Tracker:
    tracker = Tracker(TrackingConfig(uri=uri, **config), Path(folder))
    tracker.start({"seed": 3}, CONTRACTS["all groups"], "data/samples")
    return tracker


def in_processes(*works: Callable[[], None]) -> list[int | None]:
    """Do works at the same time, each in a process of its own; their exit codes."""
    processes = [FORK.Process(target=_without_spark, args=(work,)) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _without_spark(work: Callable[[], None]) -> None:
    """A session that other tests began would answer several processes over one connection; MLflow asks one where there is one."""
    SparkSession._instantiatedSession = SparkContext._active_spark_context = None
    work()


def whole_run(uri: str, folder: str) -> None:
    tracker = begun(uri, folder, experiment="fresh")
    tracker.report({"loss": 0.5}, 1)
    if not tracker.end("FINISHED") or tracker.failure is not None:
        raise AssertionError(tracker.failure)
    os._exit(0)


@pytest.mark.parametrize("store_is_there", [False, True])
def test_trainings_that_begin_at_once_are_all_tracked(tmp_path: Path, store_is_there: bool) -> None:
    uri = new_store(tmp_path / "mlflow.db") if store_is_there else f"sqlite:///{tmp_path}/mlflow.db"
    with seconds(120):
        assert in_processes(*(lambda n=n: whole_run(uri, f"journal-{n}") for n in range(3))) == [0, 0, 0]
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("fresh")
    runs = client.search_runs([experiment.experiment_id])
    assert [(run.info.status, run.data.metrics) for run in runs] == [("FINISHED", {"loss": 0.5})] * 3


def test_a_database_that_is_locked_for_a_moment_at_the_end_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_store(tmp_path / "mlflow.db")
    tracker = begun(uri, "journal")
    tracker.report({"loss": 0.5}, 1)
    answers = [OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))]
    send = MlflowClient.log_batch

    def once_locked(*arguments: Any, **named: Any) -> Any:
        if answers:
            raise answers.pop()
        return send(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", once_locked)
    assert tracker.end("FINISHED")
    assert not answers
    run = mlflow.MlflowClient(uri).get_run(str(tracker.run_id))
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.5})


def killed(uri: str, folder: str) -> None:
    tracker = begun(uri, folder)
    tracker.report({"loss": 0.5}, 1)
    tracker.flush()
    tracker.report({"loss": 0.4}, 2)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_training_whose_process_was_killed_goes_on_in_its_run_with_each_metric_once(tmp_path: Path) -> None:
    uri = new_store(tmp_path / "mlflow.db")
    assert in_processes(lambda: killed(uri, "journal")) == [-signal.SIGKILL]
    with (tmp_path / "journal" / "journal.jsonl").open("a") as file:
        file.write('{"at": 17, "step": 3, "metr')  # the line that it was killed at

    tracker = begun(uri, "journal")
    for step, loss in ((1, 0.51), (2, 0.41), (3, 0.3)):  # from its checkpoint, or the beginning
        tracker.report({"loss": loss}, step)
    assert tracker.end("FINISHED")
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mian").experiment_id])
    assert (run.info.run_id, run.info.status) == (tracker.run_id, "FINISHED")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.4), (3, 0.3)]


def test_a_journal_that_cannot_be_written_is_kept_in_memory_and_that_is_said_once(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").touch()
    tracker = begun(new_store(tmp_path / "mlflow.db"), "file/journal")
    for step in range(3):
        tracker.report({"loss": 0.5}, step)
    assert tracker.end("FINISHED")
    (said,) = [record.getMessage() for record in caplog.records if record.name == "mian.tracking.journal"]
    assert "file/journal: what the run is told cannot be kept there" in said
    assert len(mlflow.MlflowClient(tracker.uri).get_metric_history(tracker.run_id, "loss")) == 3


def test_a_disk_that_is_full_for_a_moment_loses_nothing_of_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Journal(tmp_path / "journal")
    first.report({"loss": 0.5}, 1)

    def full_at_the_end(self: Path, *args: Any, **kwargs: Any) -> Any:
        with opened(self, "a", encoding="utf-8") as file:
            file.write('{"at": 17, "st')
        raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full_at_the_end)
        first.report({"loss": 0.4}, 2)
        first.attach("table.csv", b"1\n")
    first.sent("run", 2)

    second = Journal(tmp_path / "journal")  # of a process after a kill
    second.report({"loss": 0.3}, 3)
    assert [(point.step, point.value) for point in second.points] == [(1, 0.5), (2, 0.4), (3, 0.3)]
    assert second.waiting("run") == second.points[2:]


def test_a_journal_remembers_points_files_and_what_was_sent(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journals" / "a")
    first.report({"loss": 0.5, "auc": float("nan")}, 1)
    first.sent("run", 1)
    first.attach("plots/one.csv", b"1\n")
    first.attach("two.csv", b"2\n")
    first.uploaded("two.csv")
    first.note("model", "größe")

    second = Journal(tmp_path / "journals" / "a")
    assert second.training == first.training
    assert [point.name for point in second.points] == ["loss", "auc"]
    assert [point.name for point in second.waiting("run")] == ["auc"]
    assert len(second.waiting("another")) == 2
    assert second.files == {"plots/one.csv": b"1\n"}
    assert second.notes["model"] == "größe"
    second.remove()
    assert list(tmp_path.iterdir()) == []
