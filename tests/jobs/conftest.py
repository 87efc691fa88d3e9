import contextlib
import io
import json
import logging
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import mian.tracking.tracker
from jobs import train
from mian.contract import Contract, read_contract
from tests.factories import SMALL_MODEL, rewrite, write_file, write_samples
from tests.support.stores import new_store

#: Of the training that all tests share.
OVERRIDES = ["evaluations_per_epoch=2", "model.options.dropout=0.1"]


@dataclass(frozen=True)
class Workplace:
    """A folder with a training's configuration; jobs are run in it, so that their stores are there."""

    folder: Path
    samples: Path
    contract: Contract

    @property
    def config(self) -> Path:
        return self.folder / "train.yaml"

    @property
    def models(self) -> list[Path]:
        """The folders of the models that trainings kept."""
        return sorted((self.folder / "models").glob("mian-*"))

    @property
    def output(self) -> list[str]:
        """The names of all that is in the output folder."""
        return sorted(path.name for path in (self.folder / "models").glob("*"))

    def store(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(f"sqlite:///{self.folder}/mlflow.db")


@dataclass(frozen=True)
class Finished(Workplace):
    """A workplace after a training."""

    code: int
    log: str


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def make_workplace(folder: Path, samples: Path) -> Workplace:
    values = {
        "samples": str(samples),
        "output": str(folder / "models"),
        "model": {"name": "mian", "options": dict(SMALL_MODEL)},
        "optimizer": {"learning_rate": 3e-3},
        "batch_size": 32,
        "epochs": 1,
        "threads": 1,
        "log_every": 20,
        "tracking": {"run_name": "first"},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(values))
    return Workplace(folder, samples, read_contract(str(samples)))


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Jobs run in a folder, with MLflow as a new process finds it, and leave this process as it was."""
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")  # one process knows a relative path only once
        patch.setattr(sys, "path", list(sys.path))  # MLflow puts the code of each model that it loads before everything else
        patch.chdir(folder)
        try:
            yield
        finally:
            assert mlflow.active_run() is None, "a job is to leave no run open"
            mlflow.set_tracking_uri(before)


@pytest.fixture
def workplace(tmp_path: Path, samples: Path) -> Iterator[Workplace]:
    place = make_workplace(tmp_path, samples)
    new_store(tmp_path / "mlflow.db")
    with working_in(tmp_path):
        yield place


@pytest.fixture(scope="session")
def once_trained(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Finished:
    """A training with an override, in a store of its own; tests leave it as it is."""
    place = make_workplace(tmp_path_factory.mktemp("trained"), samples)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("mian.tracking").addHandler(handler)
    level = logging.getLogger("mian.tracking").level
    logging.getLogger("mian.tracking").setLevel(logging.INFO)
    with working_in(place.folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
        code = train.main(["--config", str(place.config), *OVERRIDES])
    logging.getLogger("mian.tracking").setLevel(level)
    logging.getLogger("mian.tracking").removeHandler(handler)
    return Finished(place.folder, samples, place.contract, code, said.getvalue())


@pytest.fixture
def beside(once_trained: Finished, tmp_path: Path) -> Iterator[Finished]:
    """To run other jobs on what ``once_trained`` left, from an empty folder; the model's registry is to stay as it is."""
    before = _registry(once_trained)
    with working_in(tmp_path):
        yield once_trained
    assert _registry(once_trained) == before, "other tests read this store: change a copy"


def _registry(place: Workplace) -> tuple[set[str], dict[str, str]]:
    """The versions of a store's model and its aliases."""
    client = place.store()
    versions = {str(version.version) for version in client.search_model_versions("name = 'mian'")}
    return versions, dict(client.get_registered_model("mian").aliases)


def damaged_contracts(contract: Contract) -> dict[str, str]:
    """Documents that are no contract of this release, and what is to be said of each."""
    good = contract.to_json()
    document = json.loads(good)
    return {
        json.dumps(document | {"version": 4}): "contract of version 4, this release reads versions 1 to 3",
        json.dumps({name: value for name, value in document.items() if name != "history"}): "damaged contract at 'history'",
        good[: len(good) // 2]: "not a JSON document",
        json.dumps(document | {"format": "another"}): "not a mian-samples contract",
    }


def one_error(capsys: Any) -> str:
    """The one line in which a job said why it ended."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return str(lines[0])


def assert_trace(path: Path, steps: int, exchanges: bool = False) -> None:
    """A file that Perfetto opens, in which so many steps have their parts, one inside the other where they are."""
    events = json.loads(path.read_text())["traceEvents"]
    parts: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        if event.get("ph") == "X" and event.get("cat") == "user_annotation":
            parts.setdefault(event["name"], []).append((event["ts"], event["ts"] + event["dur"]))
    for name in ("reading", "forward", "backward", "update"):
        assert len(parts[name]) == steps, name
    for (_, forward), (backward, _) in zip(sorted(parts["forward"]), sorted(parts["backward"]), strict=True):
        assert forward <= backward
    assert any(event["name"].startswith("aten::") for event in events), "operators"
    if exchanges:
        within = [any(start <= at and to <= end for start, end in parts["update"]) for at, to in parts["exchange"]]
        assert sum(within) >= steps, "gradients are exchanged in each"
    else:
        assert "exchange" not in parts


def the_run(place: Workplace) -> mlflow.entities.Run:
    """The one run of a workplace."""
    client = place.store()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return run


def points(place: Workplace, metric: str) -> dict[int, float]:
    """What its run has of a metric, by step."""
    return {point.step: point.value for point in place.store().get_metric_history(the_run(place).info.run_id, metric)}


def closed_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def before_each_report(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Something happens in the middle of a training, given the steps that it has done."""
    report = mian.tracking.tracker.Tracker.report

    def act_and_report(tracker: Any, metrics: Any, step: int) -> None:
        act(step)
        report(tracker, metrics, step)

    monkeypatch.setattr(mian.tracking.tracker.Tracker, "report", act_and_report)


def extended(place: Finished, folder: str, new_id: int, *more: str) -> str:
    """Samples whose items got two values more, and a test day in which every third candidate and latest behavior is one of an id."""
    shutil.copytree(place.samples, folder)
    vocabularies = list(place.contract.vocabularies)
    number = next(n for n, vocabulary in enumerate(vocabularies) if vocabulary.name == "item")
    old = pq.read_table(Path(folder, str(vocabularies[number].path)))
    values = pa.chunked_array([pa.array([*more, *old["value"].to_pylist(), "late", "later"])])
    file = write_file(Path(folder), "item-2.parquet", pa.table({"value": values, "count": pa.array(range(len(values)))}))
    changes = {"path": file.path, "sha256": file.sha256, "size": len(values) + 2}
    vocabularies[number] = vocabularies[number].model_copy(update=changes)
    later = place.contract.model_copy(update={"vocabularies": tuple(vocabularies), "vocabulary_version": 2})

    def with_new_ids(samples: pa.Table) -> pa.Table:
        table = samples.to_pandas()
        table.loc[::3, "candidate_item_id"] = np.int32(new_id)
        table["behavior_item_id"] = [
            np.append(np.int32(new_id), ids[1:]).astype(np.int32) if row % 3 == 0 and length else ids
            for row, (ids, length) in enumerate(zip(table["behavior_item_id"], table["behavior_length"], strict=True))
        ]
        return pa.Table.from_pandas(table, samples.schema, preserve_index=False)

    for file in place.contract.split("test")[0].files:
        later = rewrite(Path(folder), later, file.path, with_new_ids, compression="zstd")
    return folder
