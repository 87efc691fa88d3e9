"""A training that is killed at any moment, whatever its tracking server does meanwhile, leaves one whole record and one model."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import psutil
import pytest
import torch

from jobs import register
from tests.factories import write_samples
from tests.launcher import processes_with
from tests.support.flaky_tracking_server import TrackingServer
from tests.support.trainings import SECONDS, Training, assert_same_weights, long_training

#: More of them take longer and say more: MIAN_KILLS=20 pytest -m long.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
#: What the server does during a training, in turn.
STATES = ("wavering", "down", "up")
#: Of the record, what depends on the machine's speed.
TIMED = ("samples_per_second", "time_", "system/")

Record = dict[tuple[str, int], tuple[float, ...]]

pytestmark = [pytest.mark.ranks, pytest.mark.long]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with TrackingServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is refused is not asked again for minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def tracked(folder: Path, samples: Path, server: TrackingServer) -> Training:
    """A training with an experiment and a registered name of its own."""
    names = {"experiment": folder.name, "registered_name": folder.name}
    return long_training(folder, samples, tracking={"uri": server.uri, **names}, epochs=4)


def record(server: TrackingServer, name: str) -> tuple[str, Record]:
    """The one run of an experiment: its id, and all values of each metric and step."""
    client = mlflow.MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    found: dict[tuple[str, int], list[float]] = {}
    for metric in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, metric) if not metric.startswith(TIMED) else []:
            found.setdefault((metric, point.step), []).append(point.value)
    return run.info.run_id, {key: tuple(values) for key, values in found.items()}


@pytest.fixture(scope="module")
def undisturbed(
    samples: Path, server: TrackingServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Training, Record, float]:
    """A training that nothing happened to, its record, and how many seconds it took."""
    training = tracked(tmp_path_factory.mktemp("undisturbed"), samples, server)
    began = time.monotonic()
    training.finish()
    return training, record(server, training.folder.name)[1], time.monotonic() - began


def test_a_training_that_is_killed_leaves_one_record_and_one_version(
    samples: Path,
    server: TrackingServer,
    undisturbed: tuple[Training, Record, float],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, expected, seconds = undisturbed
    assert set(map(len, expected.values())) == {1}
    assert {"train_logloss", "validation_auc", "test_auc", "best_step"} <= {name for name, _ in expected}
    draw = random.Random(int(os.environ.get("MIAN_SEED", "0")))
    found: list[str] = []
    attempt = 0
    while len(found) < KILLS:
        state = STATES[attempt % len(STATES)]
        training = tracked(tmp_path / f"killed-{attempt}", samples, server)
        server.stay(state, attempt)
        with training.start() as launch:
            kill(training, draw.choice(["0", "1", "both"]), launch.process.pid, draw.uniform(0, seconds))
            launch.wait(SECONDS)
        output = launch.output
        assert not launch.tracebacks(), output
        ended = bool(training.models()) and not (training.folder / "models" / "checkpoints").exists()
        if launch.code and not ended:  # else rank 0 had done all that there was to do
            found.append(f"{state} {moment(training, output)}")
            again = training.finish()
            output = again.output
            assert not again.tracebacks(), output
        server.stay("up")
        (model,) = (path.parent for path in training.models())
        with capsys.disabled():
            print(f"\nattempt {attempt}: {f'{state} ended before' if ended else found[-1]}", flush=True)
        if (training.folder / "models" / "tracking").exists():
            assert state != "up", output
            assert register.main(["--model", str(model)]) == 0
        assert_whole(training, whole.weights(), expected, server)
        attempt += 1
    counts = Counter(each.partition(" ")[2].rstrip("0123456789 ") for each in found)
    with capsys.disabled():
        print(f"\nkilled: {dict(counts)}")


def assert_whole(training: Training, weights: dict[str, torch.Tensor], expected: Record, server: TrackingServer) -> None:
    """The weights, the record, the version and the folder are those of an undisturbed training."""
    name = training.folder.name
    assert processes_with(training.folder) == []
    assert_same_weights(training.weights(), weights)
    run_id, found = record(server, name)
    assert found == expected
    (version,) = mlflow.MlflowClient(server.uri).search_model_versions(f"name = '{name}'")
    assert version.run_id == run_id
    (model,) = (path.parent for path in training.models())
    assert [path.name for path in (training.folder / "models").iterdir()] == [model.name]
    assert not [path for path in training.folder.rglob("*") if path.name.endswith((".part", ".old", ".lock"))]


def moment(training: Training, output: str) -> str:
    """What a training was doing when it was killed."""
    if training.models():
        return "after the model was written"
    return f"at step {step}" if (step := training.checkpointed()) else "before the first checkpoint"


def kill(training: Training, victim: str, launcher: int, seconds: float) -> None:
    """SIGKILL one rank or both, so many seconds after the launcher started."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and psutil.pid_exists(launcher):
        time.sleep(0.02)
    while psutil.pid_exists(launcher) and not training.ranks() and time.monotonic() < deadline + 60:
        time.sleep(0.02)
    for rank, process in training.ranks().items():
        if victim in (rank, "both"):
            with suppress(psutil.NoSuchProcess):
                process.kill()
