"""Trainings against MLflow on PostgreSQL, parts of which go away meanwhile, and the script that starts both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest

from mian.tracking.journal import JOURNALS
from mian.tracking.records import read_training
from tests.factories import TRAIN_DAYS, write_samples
from tests.launcher import ENVIRONMENT, ROOT
from tests.support.tracking_script import TrackingScript, missing
from tests.support.trainings import Training, long_training

#: Seconds that the server is away, and the database.
OUTAGE, DATABASE_OUTAGE = 90.0, 15.0
EPOCHS = int(os.environ.get("MIAN_OUTAGE_EPOCHS", "100"))
#: An outage ends before a training is further than that, on a machine where all of it is done sooner.
STEPS = int(0.6 * EPOCHS * (sum(map(sum, TRAIN_DAYS)) // 16))
SEEDS = (0, 1)
TIMEOUT = 1200
#: Of the record, what depends on the machine's speed: there once a step, with values of its own. System metrics may have gaps.
TIMED = ("samples_per_second", "time_")
SYSTEM = "system/"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

Record = dict[tuple[str, int], list[float]]


class Pair(NamedTuple):
    """Two trainings that ran at once."""

    name: str
    samples: Path
    folders: list[Path]
    seconds: list[float]

    @property
    def models(self) -> list[Path]:
        return [next((folder / "models").glob("mian-*/weights.pt")).parent for folder in self.folders]


@pytest.fixture(scope="module")
def server() -> Iterator[TrackingScript]:
    before = mlflow.get_tracking_uri()
    with TrackingScript() as server:
        server.start()
        mlflow.set_tracking_uri(server.uri)
        try:
            yield server
        finally:
            mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_samples(folder := tmp_path_factory.mktemp("samples"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(server: TrackingScript, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return train_two("undisturbed", tmp_path_factory.mktemp("undisturbed"), server, samples)


def test_trainings_outlive_a_server_that_is_killed_and_started_again(
    server: TrackingScript, samples: Path, undisturbed: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def outage(trainings: list[Training]) -> None:
        server.kill_server()
        wait(OUTAGE, trainings)
        server.start()

    pair = train_two("killed", tmp_path, server, samples, outage)
    assert_whole(server, undisturbed, pair, capsys)


def test_trainings_outlive_a_server_that_does_not_come_back(
    server: TrackingScript, samples: Path, undisturbed: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = train_two("gone", tmp_path, server, samples, lambda trainings: server.kill_server())
    assert [(folder / "models" / JOURNALS).exists() for folder in pair.folders] == [True, True]
    server.start()
    assert_whole(server, undisturbed, pair, capsys)


def test_trainings_outlive_a_database_that_is_stopped(
    server: TrackingScript, samples: Path, undisturbed: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def outage(trainings: list[Training]) -> None:
        server.stop_database()
        wait(DATABASE_OUTAGE, trainings)
        assert "starting the server" not in server.start()

    pair = train_two("no database", tmp_path, server, samples, outage)
    assert_whole(server, undisturbed, pair, capsys)


def wait(seconds: float, trainings: list[Training]) -> None:
    """Wait so many seconds, or until a training is far."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and max(training.checkpointed() for training in trainings) < STEPS:
        time.sleep(0.5)


def train_two(
    name: str,
    folder: Path,
    server: TrackingScript,
    samples: Path,
    outage: Callable[[list[Training]], object] = lambda trainings: None,
) -> Pair:
    """Two trainings at once, of which each is a process; the outage begins when the store has metrics of both."""
    folders = [folder / f"seed-{seed}" for seed in SEEDS]
    tracking = {"uri": server.uri, "experiment": name, "registered_name": name}
    trainings = [
        long_training(each, samples, tracking=tracking, seed=seed, epochs=EPOCHS)
        for each, seed in zip(folders, SEEDS, strict=True)
    ]
    with ExitStack() as stack:
        began = time.monotonic()
        processes = [start_job(stack, "train.py", training.folder, "--config", training.config) for training in trainings]
        while len(reporting(server, name)) < len(processes):
            assert all(process.poll() is None for process in processes), logs(folders)
            time.sleep(0.5)
        outage(trainings)
        seconds = [0.0] * len(processes)
        while not all(seconds) and time.monotonic() < began + TIMEOUT:
            for number, process in enumerate(processes):
                if process.poll() is not None and not seconds[number]:
                    seconds[number] = time.monotonic() - began
            time.sleep(0.1)
        assert [process.poll() for process in processes] == [0, 0], logs(folders)
    return Pair(name, samples, folders, seconds)


def start_job(stack: ExitStack, job: str, folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """A job as a process of its own, in a folder, where its log is; it is killed where the test ends before."""
    log = stack.enter_context((folder / f"{job}.log").open("wb"))
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / job), *map(str, arguments)],
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": paths},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    stack.callback(process.kill)
    return process


def logs(folders: list[Path]) -> str:
    return "\n".join(path.read_text() for folder in folders for path in sorted(folder.glob("*.log")))


def reporting(server: TrackingScript, name: str) -> list[mlflow.entities.Run]:
    """The runs of an experiment that have metrics of steps."""
    client = mlflow.MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return [run for run in runs if "train_logloss" in run.data.metrics]


def assert_whole(server: TrackingScript, undisturbed: Pair, pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """After jobs/register.py both trainings have the record of an undisturbed one, one version each, and artifacts."""
    with ExitStack() as stack:
        for folder, model in zip(pair.folders, pair.models, strict=True):
            register = start_job(stack, "register.py", folder, "--model", model)
            assert register.wait(TIMEOUT) == 0, logs([folder])
    client = mlflow.MlflowClient(server.uri)
    runs = {run.data.tags["mian.training"]: run for run in reporting(server, pair.name)}
    versions = client.search_model_versions(f"name = '{pair.name}'")
    assert len(runs) == len(versions) == len(pair.models), "one run and one version each"
    counts = []
    for folder, model, reference in zip(pair.folders, pair.models, undisturbed.models, strict=True):
        run = runs[read_training(model).training]
        assert run.info.status == "FINISHED"
        found, expected = record(client, run.info.run_id), record_of(server, undisturbed, reference)
        assert found.keys() == expected.keys()
        assert {point: len(values) for point, values in found.items() if len(values) > 1} == {}
        assert untimed(found) == untimed(expected)
        counts.append(len(found))
        (version,) = (version for version in versions if version.run_id == run.info.run_id)
        copies = str(folder / "from the server")
        contract = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="contract.json", dst_path=copies)
        assert Path(contract).read_bytes() == (pair.samples / "contract.json").read_bytes()
        uri = f"models:/{pair.name}/{version.version}"
        registered = Path(mlflow.artifacts.download_artifacts(uri, dst_path=f"{copies}/model"))
        (weights,) = registered.rglob("weights.pt")
        assert weights.read_bytes() == (model / "weights.pt").read_bytes()
    assert client.get_model_version_by_alias(pair.name, "newest").run_id in {run.info.run_id for run in runs.values()}
    with capsys.disabled():
        seconds, whole = (", ".join(f"{each:.0f}" for each in times) for times in (pair.seconds, undisturbed.seconds))
        print(f"\n{pair.name}: {counts} points; {seconds} s, undisturbed {whole} s", flush=True)


def record_of(server: TrackingScript, pair: Pair, model: Path) -> Record:
    client, training = mlflow.MlflowClient(server.uri), read_training(model).training
    (run,) = (run for run in reporting(server, pair.name) if run.data.tags["mian.training"] == training)
    return record(client, run.info.run_id)


def record(client: mlflow.MlflowClient, run_id: str) -> Record:
    """All values of each metric and step of a run."""
    found: Record = {}
    for metric in client.get_run(run_id).data.metrics:
        for point in client.get_metric_history(run_id, metric) if not metric.startswith(SYSTEM) else []:
            found.setdefault((metric, point.step), []).append(point.value)
    assert {"train_logloss", "validation_auc", "test_auc", "best_step"} <= {name for name, _ in found}
    return found


def untimed(record: Record) -> Record:
    return {point: values for point, values in record.items() if not point[0].startswith(TIMED)}
