"""A rank that neither goes on nor ends: the others say which one it is, and nobody waits for it longer than was said."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.launcher import ENVIRONMENT, ROOT, Launched, processes_with
from tests.support.sample_data import write_samples
from tests.support.trainings import the_run, write_training

pytestmark = [pytest.mark.ranks]

TIMEOUT = 15
#: What is left of the epoch, the time-out, and at most 10 s of the launcher's patience; on a machine that has other work to do.
WITHIN = TIMEOUT + 120


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with samples for each of two ranks, a tracking store, and the configuration of a training that does not end."""
    write_samples(tmp_path / "samples-0")
    shutil.copytree(tmp_path / "samples-0", tmp_path / "samples-1")
    write_training(
        tmp_path,
        f"{tmp_path}/samples-${{oc.env:HOROVOD_RANK}}",
        epochs=100_000,
        checkpoint={"every_steps": 20},
        exchange_timeout_seconds=10 * TIMEOUT,
    )
    return tmp_path


def train_until_hung(place: Path, hang: Callable[[], object], gloo: int, *overrides: str) -> Launched:
    """Train on two ranks, do something to one in the midst of it, and wait for the end."""
    command = [Path(sys.executable).with_name("horovodrun"), "-np", "2", "--gloo", "--gloo-timeout-seconds", gloo]
    job = [sys.executable, ROOT / "jobs" / "train.py", "--config", place / "train.yaml", *overrides]
    with subprocess.Popen(
        [str(part) for part in [*command, *job]],
        cwd=place,
        env=os.environ | ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not list(place.glob("models/checkpoints/*/step-*")):
                assert time.monotonic() < deadline, "it does not train"
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
            hang()
            output, _ = process.communicate(timeout=WITHIN)
        finally:
            process.send_signal(signal.SIGTERM)  # horovodrun ends its ranks
    assert processes_with(place) == []
    return Launched(process.returncode, output)


def process_of(place: Path, rank: int) -> psutil.Process:
    for process in psutil.process_iter():
        try:
            if str(place / "train.yaml") in process.cmdline() and process.environ().get("HOROVOD_RANK") == str(rank):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"there is no rank {rank}")


def assert_told(launched: Launched, hung: int) -> None:
    assert launched.code == 1, launched.output
    assert len(launched.errors()) == 1, launched.output
    (error,) = launched.errors()
    said = re.search(rf"rank {hung} did not come to an exchange for (\d+) s", error)
    assert said is not None, error
    assert TIMEOUT - 2 <= int(said[1]) <= TIMEOUT + 5
    assert any(error in line for line in launched.lines_of(1 - hung))
    assert "Traceback" not in "".join(launched.lines_of(1 - hung)), launched.output


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_process_is_frozen_is_named_and_all_end(place: Path, rank: int) -> None:
    launched = train_until_hung(place, lambda: process_of(place, rank).suspend(), TIMEOUT)
    assert_told(launched, rank)
    # whoever is frozen cannot end the run, as whoever is killed: the training that goes on does
    assert the_run(place).info.status == ("FAILED" if rank == 1 else "RUNNING")


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_rank_that_is_stuck_in_reading_is_named_and_all_end(place: Path, rank: int) -> None:
    def stuck() -> None:
        """Whoever opens these files from now on waits for somebody who writes to them."""
        for file in (place / f"samples-{rank}").glob("day=*/*.parquet"):
            file.unlink()
            os.mkfifo(file)

    assert_told(train_until_hung(place, stuck, 10 * TIMEOUT, f"exchange_timeout_seconds={TIMEOUT}"), rank)
