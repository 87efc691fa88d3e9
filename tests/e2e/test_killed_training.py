"""A training on two ranks that is killed at any moment ends, and the next one goes on as if nothing had been."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from jobs.stop_signal import STOPPED
from mian.contract import read_contract
from tests.factories import write_samples
from tests.launcher import Launch, processes_with
from tests.support.trainings import SECONDS, Training, assert_same_weights, long_training

#: More of them take longer and say more: MIAN_KILLS=20.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
#: Of a long training.
BATCH_SIZE, EPOCHS, EVERY_STEPS = 16, 6, 10

pytestmark = [pytest.mark.ranks]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.fixture(scope="module")
def whole(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a training that nothing happened to."""
    training = long_training(tmp_path_factory.mktemp("whole"), samples)
    training.finish()
    return training.weights()


def steps_of_epoch(samples: Path) -> int:
    return sum(day.rows for day in read_contract(str(samples)).split("train")) // (2 * BATCH_SIZE)


def test_the_next_training_goes_on_where_a_stopped_or_killed_one_was(
    samples: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Each is killed at a drawn moment; the first was asked to stop before."""
    draw = random.Random(int(os.environ.get("MIAN_SEED", "0")))
    found: list[int] = []
    for attempt in itertools.count():
        if len(found) == KILLS:
            break
        training = long_training(tmp_path / f"killed-{attempt}", samples)
        steps = EPOCHS * steps_of_epoch(samples)
        stopped_at = 0 if attempt else ask_to_stop(training, steps)
        with training.start() as launch:
            kill_a_rank(training, launch, draw, stopped_at, steps)
            launch.wait(SECONDS)
        output = launch.output
        assert not launch.tracebacks(), output
        checkpointed, kept = training.checkpointed(), len(training.models())
        if stopped_at and checkpointed != stopped_at:  # else it was killed before it had come further, and the next one says so
            assert f"goes on after step {stopped_at:,}" in output
        if launch.code:  # else it had come to its end before
            found.append(checkpointed)
            output = training.finish().output
            kept += 1
        assert len(training.models()) == kept
        assert processes_with(training.folder) == []
        assert_same_weights(training.weights(), whole)
        assert not (training.folder / "models" / "checkpoints").exists()
        assert not checkpointed or f"goes on after step {checkpointed:,}" in output
    print(f"newest checkpoint when killed: {found}, of {steps} steps")


def ask_to_stop(training: Training, steps: int) -> int:
    """SIGTERM: it saves what it has, and ends; the step that it had come to."""
    with training.start() as launch:
        deadline = time.monotonic() + SECONDS
        while training.checkpointed() < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        launch.process.send_signal(signal.SIGTERM)
        launch.wait(SECONDS)
    output = launch.output
    assert launch.code == 1, output
    assert all(f"Process {rank} exit with status code {STOPPED}." in output for rank in range(2)), output
    stopped_at = training.checkpointed()
    assert f"stopped after step {stopped_at:,}; started again, it goes on" in output
    assert not launch.tracebacks(), output
    assert 20 < stopped_at < steps
    assert training.models() == []
    return stopped_at


def kill_a_rank(training: Training, launch: Launch, draw: random.Random, first: int, steps: int) -> None:
    """SIGKILL a drawn rank at a drawn moment: after a step from ``first`` to the last, and some time that is more than one step takes."""
    step = draw.randint(first, steps)
    victim = draw.choice([0, 1])
    pause = draw.uniform(0.0, 1.5)
    deadline = time.monotonic() + SECONDS
    while launch.code is None and time.monotonic() < deadline:
        ranks = training.ranks()
        if str(victim) in ranks and training.checkpointed() >= step - step % EVERY_STEPS:
            time.sleep(pause)
            with suppress(psutil.NoSuchProcess):
                ranks[str(victim)].kill()
            return
        time.sleep(0.02)
