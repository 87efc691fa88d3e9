"""A training on two ranks that is killed at any moment ends, and the next one goes on as if nothing had been."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from jobs.stop_signal import STOPPED
from mian.checkpoint.store import CheckpointStore
from mian.contract import read_contract
from tests.support.launcher import ENVIRONMENT, ROOT, processes_with
from tests.support.sample_data import SMALL_MODEL, write_samples
from tests.support.trainings import write_training

#: More of them take longer and say more: MIAN_KILLS=20.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
SECONDS = 180

BATCH_SIZE, EPOCHS, EVERY_STEPS = 16, 6, 10

pytestmark = [pytest.mark.ranks]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


class Training:
    """A training of its own folder, on two ranks; ``values`` of its configuration take the place of others."""

    def __init__(self, folder: Path, samples: Path, **values: object) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.samples = samples
        settings: dict[str, object] = {
            "model": {"name": "mian", "options": {**SMALL_MODEL, "dropout": 0.2}},
            "optimizer": {"learning_rate": 3e-3, "schedule": "linear", "l2_embedding": 1e-4},
            "batch_size": BATCH_SIZE,
            "epochs": EPOCHS,
            "log_every": 20,
            "checkpoint": {"every_steps": EVERY_STEPS},
        }
        write_training(folder, samples, **settings | values)

    def start(self) -> subprocess.Popen[str]:
        launcher = str(Path(sys.executable).with_name("horovodrun"))
        job = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(self.folder / "train.yaml")]
        return subprocess.Popen(
            [launcher, "-np", "2", "--gloo", *job],
            cwd=self.folder,
            env=os.environ | ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def finish(self) -> str:
        """Run to the end; what it said."""
        with self.start() as process:
            output = said_by(process)
        assert process.returncode == 0, output
        return output

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes of the ranks that run."""
        found = {}
        for process in psutil.process_iter():
            try:
                if str(self.folder / "train.yaml") in process.cmdline() and "HOROVOD_RANK" in (environment := process.environ()):
                    found[int(environment["HOROVOD_RANK"])] = process
            except psutil.Error:
                continue
        return found

    def models(self) -> list[Path]:
        """The weights of what was kept; one that was killed while it registered its model keeps another."""
        return list(self.folder.glob("models/mian-*/weights.pt"))

    def weights(self) -> dict[str, torch.Tensor]:
        path = max(self.models())
        weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
        return weights

    def checkpointed(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return max(
            (step for folder in self.folder.glob("models/checkpoints/*") for step in CheckpointStore(folder, 2).steps()),
            default=0,
        )


@pytest.fixture(scope="module")
def whole(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a training that nothing happened to."""
    training = Training(tmp_path_factory.mktemp("whole"), samples)
    training.finish()
    return training.weights()


def steps_of_epoch(samples: Path) -> int:
    return sum(day.rows for day in read_contract(str(samples)).split("train")) // (2 * BATCH_SIZE)


def said_by(process: subprocess.Popen[str]) -> str:
    """All that it said, when it has ended; ends it where it does not end by itself."""
    try:
        return process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # horovodrun ends its ranks
        raise


def tracebacks(output: str) -> list[str]:
    """Lines of ranks that begin one; horovodrun ends with its own."""
    return [line for line in output.splitlines() if line.startswith("[") and "Traceback" in line]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_the_next_training_goes_on_where_a_stopped_or_killed_one_was(
    samples: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Each is killed at a drawn moment; the first was asked to stop before."""
    draw = random.Random(int(os.environ.get("MIAN_SEED", "0")))
    found: list[int] = []
    for attempt in itertools.count():
        if len(found) == KILLS:
            break
        training = Training(tmp_path / f"killed-{attempt}", samples)
        stopped_at = 0 if attempt else ask_to_stop(training)
        with training.start() as process:
            kill_a_rank(training, process, draw, stopped_at)
            output = said_by(process)
        assert not tracebacks(output), output
        checkpointed, kept = training.checkpointed(), len(training.models())
        if stopped_at and checkpointed != stopped_at:  # else it was killed before it had come further, and the next one says so
            assert f"goes on after step {stopped_at:,}" in output
        if process.returncode:  # else it had come to its end before
            found.append(checkpointed)
            output = training.finish()
            kept += 1
        assert len(training.models()) == kept
        assert processes_with(training.folder) == []
        assert_same(training.weights(), whole)
        assert not (training.folder / "models" / "checkpoints").exists()
        assert not checkpointed or f"goes on after step {checkpointed:,}" in output
    print(f"newest checkpoint when killed: {found}, of {EPOCHS * steps_of_epoch(samples)} steps")


def ask_to_stop(training: Training) -> int:
    """SIGTERM: it saves what it has, and ends; the step that it had come to."""
    with training.start() as process:
        deadline = time.monotonic() + SECONDS
        while training.checkpointed() < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output = said_by(process)
    assert process.returncode == 1, output
    assert all(f"Process {rank} exit with status code {STOPPED}." in output for rank in range(2)), output
    stopped_at = training.checkpointed()
    assert f"stopped after step {stopped_at:,}; started again, it goes on" in output
    assert not tracebacks(output), output
    assert 20 < stopped_at < EPOCHS * steps_of_epoch(training.samples)
    assert training.models() == []
    return stopped_at


def kill_a_rank(training: Training, process: subprocess.Popen[str], draw: random.Random, first: int) -> None:
    """SIGKILL a drawn rank at a drawn moment: after a step from ``first`` to the last, and some time that is more than one step takes."""
    step = draw.randint(first, EPOCHS * steps_of_epoch(training.samples))
    victim = draw.choice([0, 1])
    pause = draw.uniform(0.0, 1.5)
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        ranks = training.ranks()
        if victim in ranks and training.checkpointed() >= step - step % EVERY_STEPS:
            time.sleep(pause)
            with suppress(psutil.NoSuchProcess):
                ranks[victim].kill()
            return
        time.sleep(0.02)
