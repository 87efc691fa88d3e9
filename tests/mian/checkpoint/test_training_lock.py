"""Two processes never work on one training."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mian.checkpoint.training_lock import AlreadyRunningError, TrainingLock

HOLD = """
import pathlib, sys
from mian.checkpoint.training_lock import TrainingLock
with TrainingLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_by_the_name_of_the_first_and_takes_over_when_that_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "key.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(
                AlreadyRunningError, match=f"running already, on host {socket.gethostname()} as process {first.pid}; wait for it"
            ),
            TrainingLock(path),
        ):
            pass
        first.kill()
    assert path.exists(), "a killed holder leaves its file"
    with TrainingLock(path):
        assert f'"pid": {os.getpid()}' in path.read_text()
        with pytest.raises(AlreadyRunningError), TrainingLock(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_has_just_removed_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.lock"
    (first := TrainingLock(path)).__enter__()
    opened, holders = os.open, [first]

    def slow(*arguments: int) -> int:
        file = opened(*arguments)
        if path.exists() and holders:
            holders.pop().__exit__(None, None, None)
        return file

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", slow)
        (second := TrainingLock(path)).__enter__()
    with pytest.raises(AlreadyRunningError), TrainingLock(path):
        pass
    second.__exit__(None, None, None)


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with TrainingLock(tmp_path / "key.lock"):
        assert "this file system has no locks" in caplog.text
