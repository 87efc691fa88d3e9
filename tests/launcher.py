"""Programs on real Horovod ranks.

:func:`horovodrun` starts a program and leaves it running, for tests that do something to it meanwhile; :func:`on_ranks` waits for its end.
:func:`work_on` runs works of :mod:`tests.support.rank_work` and brings back what each rank came to.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
import torch

from tests.support import rank_work

ROOT = Path(__file__).resolve().parents[1]
#: The job that trains.
TRAIN = ROOT / "jobs" / "train.py"
#: What ranks find. Horovod's threads look for work every 5 ms, not every one: they share the cores with the ranks here.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HOROVOD_CYCLE_TIME": "5", "PYTHONPATH": str(ROOT)}
TIMEOUT = 120  # seconds until ranks that wait for one another count as hanging
END_SECONDS = 30  # that the launcher has to end its ranks, when it is asked to

Works = Mapping[str, Mapping[str, Any]]


class Launch:
    """What runs on some ranks, or has ended.

    Args:
        process: The launcher's.
        log: Where it and its ranks write.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self._log = log
        self._output = ""

    @property
    def code(self) -> int | None:
        """The launcher's exit code; None while it runs."""
        return self.process.poll()

    @property
    def output(self) -> str:
        """All that was said so far; each line of a rank begins with the rank and the stream that it is of."""
        if self._log.closed:
            return self._output
        content = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)
        return content.decode(errors="replace")

    def lines_of(self, rank: int) -> list[str]:
        """What a rank wrote, without the launcher's prefix."""
        prefixes = (f"[{rank}]<stdout>:", f"[{rank}]<stderr>:")
        return [line.partition(":")[2] for line in self.output.splitlines() if line.startswith(prefixes)]

    def errors(self) -> list[str]:
        """The lines in which a job says why it ended."""
        return [line.partition(":")[2] for line in self.output.splitlines() if "<stderr>:error: " in line]

    def tracebacks(self) -> list[str]:
        """Lines of ranks that begin one; the launcher ends with its own."""
        return [line for line in self.output.splitlines() if line.startswith("[") and "Traceback" in line]

    def wait(self, seconds: float = TIMEOUT) -> int:
        """Wait for its end, which must come within so many seconds; the exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args} did not end within {seconds} s:\n{self.output}") from None

    def wait_until(self, reached: Callable[[], bool], seconds: float = TIMEOUT) -> None:
        """Wait for something that must come while it runs, and within so many seconds."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.code is None, f"it has ended:\n{self.output}"
            assert time.monotonic() < deadline, f"it did not come to that within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    def end(self) -> None:
        """End the launcher and its ranks, where they have not ended by themselves; keep what they said."""
        if self.code is None:
            started = _started_by(self.process.pid)
            self.process.send_signal(signal.SIGTERM)  # it ends its ranks
            try:
                self.process.wait(timeout=END_SECONDS)
            finally:
                for process in started:
                    if process.is_running():
                        process.kill()
        self._output = self.output


@contextmanager
def horovodrun(
    *command: object,
    folder: Path,
    options: Sequence[object] = ("-np", 2),
    through: Callable[..., Sequence[str]] = lambda folder, *words: words,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Launch]:
    """Start a Python program on Horovod ranks; it is ended with the context, where it has not ended by itself.

    Args:
        command: The program and its arguments.
        folder: Where it runs.
        options: The launcher's.
        through: Makes a command line that runs another one in a folder, see :meth:`tests.support.hosts.Host.command`.
        environment: Variables beside ``ENVIRONMENT``.
    """
    launcher = [Path(sys.executable).with_name("horovodrun"), "--gloo", *options, sys.executable, *command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            through(folder, *map(str, launcher)),
            cwd=folder,
            env=os.environ | ENVIRONMENT | (environment or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        launch = Launch(process, log)
        try:
            yield launch
        finally:
            launch.end()


def on_ranks(ranks: int, program: Path, *arguments: object, folder: Path, timeout: float = TIMEOUT) -> Launch:
    """Run a program on so many ranks of this machine, in a folder; fails where it does not end by itself."""
    with horovodrun(program, *arguments, folder=folder, options=("-np", ranks)) as launch:
        launch.wait(timeout)
    return launch


def work_on(folder: Path, ranks: int, works: Works, timeout: float = 300) -> dict[str, list[Any]]:
    """What each of some ranks leaves of each work, see :mod:`tests.support.rank_work`; one rank works in this process."""
    (folder / "works.json").write_text(json.dumps(works))
    if ranks == 1:
        rank_work.work(folder)
    else:
        launch = on_ranks(ranks, Path(rank_work.__file__), folder, folder=folder, timeout=timeout)
        assert launch.code == 0, launch.output
    return left_by(folder, ranks)


def left_by(folder: Path, ranks: int) -> dict[str, list[Any]]:
    """What ranks left of their works in a folder."""
    left = [torch.load(folder / f"rank-{rank}-of-{ranks}.pt", map_location="cpu") for rank in range(ranks)]
    return {name: [rank_results[name] for rank_results in left] for name in left[0]}


def ranks_with(argument: Path) -> list[tuple[dict[str, str], psutil.Process]]:
    """The running ranks that have a command-line argument, each with its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(argument) in process.cmdline() and "HOROVOD_RANK" in (environment := process.environ()):
                found.append((environment, process))
        except psutil.Error:
            continue
    return found


def processes_with(argument: Path, patience: float = 10.0) -> list[list[str]]:
    """Command lines of running processes that mention a path, but for those that end within some seconds."""
    deadline = time.monotonic() + patience
    while found := [line for line in map(_command_line, psutil.process_iter()) if any(str(argument) in part for part in line)]:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.1)
    return found


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _started_by(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []
