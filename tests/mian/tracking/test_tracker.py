"""The record of a training, on real stores: databases, a server that is not there, a store that goes away."""

import datetime as dt
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from matplotlib.figure import Figure

import mian.tracking.registry
from mian.config import TrackingConfig
from mian.contract import Day, Quality
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, check_store
from mian.tracking.records import TrainingRecord, flatten, quality_table, write_record
from mian.tracking.tracker import Tracker
from tests.factories import CONTRACTS
from tests.support.stores import new_store
from tests.support.timeouts import seconds

CONTRACT = CONTRACTS["all groups"]
PARAMS = {"seed": 3, "optimizer": {"l2": 0.5, "clip_norm": None}}


@pytest.fixture(autouse=True)
def _a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, MLflow as it is when a process begins, and no trace afterwards."""
    before = mlflow.get_tracking_uri()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    yield
    assert mlflow.active_run() is None
    mlflow.set_tracking_uri(before)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return new_store(tmp_path / "store.db")


def tracker_of(uri: str, **config: Any) -> Tracker:
    tracker = Tracker(TrackingConfig(uri=uri, **config), Path(f"journals/{uuid.uuid4().hex}"))
    tracker.start(PARAMS, CONTRACT, "data/samples")
    return tracker


def run_of(tracker: Tracker) -> mlflow.entities.Run:
    assert tracker.run_id is not None
    return mlflow.MlflowClient(tracker.uri).get_run(tracker.run_id)


def test_a_run_is_recorded(store: str, tmp_path: Path) -> None:
    tracker = tracker_of(store, experiment="trials", run_name="one")
    tracker.report({"loss": 0.5, "rate": 10.0}, 20)
    tracker.report({"loss": 0.4, "rate": 11.0}, 40)
    tracker.figure(Figure(), "empty.png")
    tracker.table(pd.DataFrame({"a": [1, 2]}), "table.csv")
    tracker.end("FINISHED")

    run, client = run_of(tracker), mlflow.MlflowClient(store)
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "trials"
    assert run.data.params == {"seed": "3", "optimizer.l2": "0.5", "optimizer.clip_norm": "None"}
    assert run.data.tags["mian.contract.fields"] == CONTRACT.fields_fingerprint
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(20, 0.5), (40, 0.4)]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "contract.json",
        "samples_quality.csv",
        "empty.png",
        "table.csv",
    }
    assert list((tmp_path / "mlartifacts").rglob("table.csv")), "artifacts lie in the folder where the training was started"


def test_more_points_than_mlflow_takes_at_once_all_arrive(store: str) -> None:
    tracker = tracker_of(store)
    for step in range(1500):
        tracker.report({"loss": step / 1500}, step)
    tracker.end("FINISHED")
    assert len(mlflow.MlflowClient(store).get_metric_history(tracker.run_id, "loss")) == 1500


def test_an_undefined_metric_is_recorded_as_such(store: str) -> None:
    tracker = tracker_of(store)
    tracker.report({"gauc": float("nan"), "loss": 0.3}, 1)
    tracker.end("FINISHED")
    assert tracker.failure is None
    assert run_of(tracker).data.metrics["loss"] == 0.3


def test_runs_share_an_experiment_and_a_failed_one_says_so(store: str) -> None:
    first, second = tracker_of(store), None
    first.end("FAILED")
    second = tracker_of(store)
    second.end("FINISHED")
    assert (run_of(first).info.status, run_of(second).info.status) == ("FAILED", "FINISHED")
    assert run_of(first).info.experiment_id == run_of(second).info.experiment_id
    assert first.run_id != second.run_id


def test_where_to_is_the_configuration_s_or_the_environment_s_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracker(TrackingConfig(), Path("journal")).uri == DEFAULT_URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert Tracker(TrackingConfig(), Path("journal")).uri == "http://tracking:5000"
    assert Tracker(TrackingConfig(uri="sqlite:///own.db"), Path("journal")).uri == "sqlite:///own.db"


def closed_port(folder: Path) -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def no_database(folder: Path) -> str:
    (folder / "notes.txt").write_text("this is no database, whatever its name says\n" * 100)
    return f"sqlite:///{folder}/notes.txt"


def a_folder(folder: Path) -> str:
    return f"sqlite:///{folder}"


def below_a_file(folder: Path) -> str:
    (folder / "file").touch()
    return f"sqlite:///{folder}/file/mlflow.db"


@pytest.mark.parametrize("broken_store", [closed_port, a_folder, below_a_file])
def test_a_store_that_is_not_there_is_said_once_and_stops_nothing(broken_store: Any, tmp_path: Path, caplog: Any) -> None:
    with seconds(30):
        tracker = tracker_of(broken_store(tmp_path))
        assert tracker.failure is not None
        tracker.report({"loss": 0.5}, 20)
        tracker.flush()
        tracker.figure(Figure(), "empty.png")
        tracker.table(pd.DataFrame({"a": [1, 2]}), "table.csv")
        assert tracker.register("no matter", pd.DataFrame()) is None
        tracker.end("FINISHED")
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "mian.tracking.tracker"]
    assert tracker.uri in warning
    assert "training goes on without it" in warning


def test_a_store_that_goes_away_is_said_once_and_stops_nothing(store: str, tmp_path: Path, caplog: Any) -> None:
    tracker = tracker_of(store)
    tracker.report({"loss": 0.5}, 20)
    tracker.flush()
    assert tracker.failure is None
    (tmp_path / "store.db").write_bytes(b"no database any more" * 2000)
    with seconds(30):
        tracker.report({"loss": 0.4}, 40)
        tracker.flush()
        tracker.table(pd.DataFrame({"a": [1, 2]}), "table.csv")
        assert tracker.register("no matter", pd.DataFrame()) is None
        tracker.end("FINISHED")
    assert tracker.failure is not None
    assert len([record for record in caplog.records if record.name == "mian.tracking.tracker"]) == 1


def test_a_store_that_is_back_at_the_end_has_no_open_run(store: str, tmp_path: Path) -> None:
    tracker = tracker_of(store)
    database = tmp_path / "store.db"
    content = database.read_bytes()
    database.write_bytes(b"no database for a while" * 2000)
    tracker.report({"loss": 0.4}, 40)
    tracker.flush()
    assert tracker.failure is not None
    database.write_bytes(content)
    tracker.end("FINISHED")
    assert run_of(tracker).info.status == "FINISHED"


class NoConnectionError(Exception):
    """An object store's client has errors of its own."""


def test_an_artifact_store_that_goes_away_is_an_outage(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def away(*arguments: Any, **options: Any) -> None:
        raise NoConnectionError("no connection to the bucket")

    write_record(tmp_path, TrainingRecord(training="a", key="b", ranks=1, config={"samples": "data/samples"}))
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_artifact", away)
        patch.setattr(mian.tracking.registry, "log_servable", away)
        tracker = tracker_of(store)
        assert tracker.register(str(tmp_path), pd.DataFrame()) is None
        assert "NoConnectionError: no connection to the bucket" in str(tracker.failure)
        patch.undo()
        patch.setattr(mian.tracking.registry, "log_servable", away)
        assert tracker.register(str(tmp_path), pd.DataFrame()) is None
        assert "NoConnectionError: no connection to the bucket" in str(tracker.failure)
    assert tracker.end("FINISHED")
    assert run_of(tracker).info.status == "FINISHED"
    names = {file.path for file in mlflow.MlflowClient(store).list_artifacts(tracker.run_id)}
    assert names == {"contract.json", "samples_quality.csv"}
    warning, *_ = [record.getMessage() for record in caplog.records if record.name == "mian.tracking.tracker"]
    assert "does not answer, training goes on without it" in warning


def test_check_store_takes_a_database_or_makes_it(tmp_path: Path) -> None:
    check_store(f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    for broken in (closed_port, a_folder):
        with pytest.raises(STORE_ERRORS):
            check_store(broken(tmp_path))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite://", "is a database in memory, which ends with the process"),
        ("sqlite:///:memory:", "is a database in memory, which ends with the process"),
        ("sqlite:foo", "is no database that SQLAlchemy knows"),
        ("postgresql+foo://user@127.0.0.1/mlflow", "is no database that SQLAlchemy knows"),
        ("oracle://user@127.0.0.1/mlflow", "the tracking store oracle://user@127.0.0.1/mlflow can never take this run"),
        ("mssql://user@127.0.0.1/mlflow", "needs pyodbc, which is not installed: pip install pyodbc"),
        ("http://", "is no address of a tracking server"),
        ("http://[bad", "is no address of a tracking server"),
        ("sqlite:///notes.txt", "notes.txt is there, and is no SQLite database"),
    ],
)
def test_a_store_that_can_never_work_is_an_error_before_the_first_step(tmp_path: Path, uri: str, said: str) -> None:
    no_database(tmp_path)
    with pytest.raises(TrackingError, match=re.escape(said)):
        tracker_of(uri)
    assert list(tmp_path.glob("journals/*")) == []


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"c": [2], "d": {"e": None}}}) == [("a", 1), ("b.c", [2]), ("b.d.e", None)]


def test_a_run_has_what_was_found_out_about_its_samples() -> None:
    quality = Quality(
        log_rows=12, quarantined={"log.impressions: time is null": 2}, unknown={"user_city": 0.25}, drift={"user_city": 0.1}
    )
    day = Day(day=dt.date(2026, 1, 1), rows=10, positives=3, fingerprint="", files=(), quality=quality, final=False)
    contract = CONTRACTS["all groups"].model_copy(update={"days": (day, day.model_copy(update={"quality": None}))})
    assert quality_table(contract).to_dict("records") == [
        {
            "day": dt.date(2026, 1, 1), "rows": 10, "positives": 3, "quarantined": 2, "final": False,
            "column": "user_city", "unknown": 0.25, "drift": 0.1,
        }
    ]  # fmt: skip
    assert quality_table(CONTRACTS["all groups"]).empty
