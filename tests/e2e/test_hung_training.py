"""A rank that neither goes on nor ends: the others say which one it is, and nobody waits for it longer than was said."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import write_samples
from tests.launcher import Launch, processes_with
from tests.support.trainings import Training, the_run

pytestmark = [pytest.mark.ranks]

TIMEOUT = 15
#: What is left of the epoch, the time-out, and at most 10 s of the launcher's patience; on a machine that has other work to do.
WITHIN = TIMEOUT + 120


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """One that does not end, in a folder with samples for each of two ranks."""
    write_samples(tmp_path / "samples-0")
    shutil.copytree(tmp_path / "samples-0", tmp_path / "samples-1")
    return Training(
        tmp_path,
        f"{tmp_path}/samples-${{oc.env:HOROVOD_RANK}}",
        epochs=100_000,
        checkpoint={"every_steps": 20},
        exchange_timeout_seconds=10 * TIMEOUT,
    )


def train_until_hung(training: Training, hang: Callable[[], object], gloo: int, *overrides: str) -> Launch:
    """Train on two ranks, do something to one in the midst of it, and wait for the end."""
    with training.start(*overrides, options=["-np", 2, "--gloo-timeout-seconds", gloo]) as launch:
        launch.wait_until(lambda: bool(list(training.folder.glob("models/checkpoints/*/step-*"))))
        hang()
        launch.wait(WITHIN)
    assert processes_with(training.folder) == []
    return launch


def assert_told(launch: Launch, hung: int) -> None:
    assert launch.code == 1, launch.output
    assert len(launch.errors()) == 1, launch.output
    (error,) = launch.errors()
    said = re.search(rf"rank {hung} did not come to an exchange for (\d+) s", error)
    assert said is not None, error
    assert TIMEOUT - 2 <= int(said[1]) <= TIMEOUT + 5
    assert any(error in line for line in launch.lines_of(1 - hung))
    assert "Traceback" not in "".join(launch.lines_of(1 - hung)), launch.output


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_process_is_frozen_is_named_and_all_end(training: Training, rank: int) -> None:
    launch = train_until_hung(training, lambda: training.ranks()[str(rank)].suspend(), TIMEOUT)
    assert_told(launch, rank)
    # whoever is frozen cannot end the run, as whoever is killed: the training that goes on does
    assert the_run(training.folder).info.status == ("FAILED" if rank == 1 else "RUNNING")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_rank_that_is_stuck_in_reading_is_named_and_all_end(training: Training, rank: int) -> None:
    def stuck() -> None:
        """Whoever opens these files from now on waits for somebody who writes to them."""
        for file in (training.folder / f"samples-{rank}").glob("day=*/*.parquet"):
            file.unlink()
            os.mkfifo(file)

    assert_told(train_until_hung(training, stuck, 10 * TIMEOUT, f"exchange_timeout_seconds={TIMEOUT}"), rank)
