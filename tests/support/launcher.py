"""Programs on real Horovod ranks."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
#: What ranks find. Horovod's threads look for work every 5 ms, not every one: they share the cores with the ranks here.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HOROVOD_CYCLE_TIME": "5", "PYTHONPATH": str(ROOT)}
TIMEOUT = 120  # seconds until ranks that wait for one another count as hanging


@dataclass(frozen=True)
class Launched:
    """What horovodrun said; each line of ``output`` begins with the rank and the stream that it is of."""

    code: int
    output: str

    def lines_of(self, rank: int) -> list[str]:
        """What a rank wrote, without the launcher's prefix."""
        prefixes = (f"[{rank}]<stdout>:", f"[{rank}]<stderr>:")
        return [line.partition(":")[2] for line in self.output.splitlines() if line.startswith(prefixes)]

    def errors(self) -> list[str]:
        """The lines in which a job says why it ended."""
        return [line.partition(":")[2] for line in self.output.splitlines() if "<stderr>:error: " in line]


def on_ranks(ranks: int, program: Path, *arguments: object, folder: Path, timeout: float = TIMEOUT) -> Launched:
    """Run ``python program arguments`` on so many ranks of this machine, in a folder; fails where it does not end by itself."""
    launcher = Path(sys.executable).with_name("horovodrun")
    command = [str(launcher), "-np", str(ranks), "--gloo", sys.executable, str(program), *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stay = _started_by(process.pid)
            process.send_signal(signal.SIGTERM)  # horovodrun ends its ranks
            try:
                output, _ = process.communicate(timeout=15)
            finally:
                _kill(stay)
            raise AssertionError(f"{ranks} ranks of {program.name} did not end within {timeout} s:\n{output}") from None
    return Launched(process.returncode, output)


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


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        if process.is_running():
            process.kill()
