"""The tracking server of ``scripts/tracking_server.sh``: MLflow on PostgreSQL, which tests take away in parts."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.flaky_tracking_server import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "tracking_server.sh"
SECONDS = 300


def missing() -> str | None:
    """What this machine lacks of what the script needs; None where it has all."""
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        return "PostgreSQL is not installed: apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'mian[postgresql]'"
    return None


class TrackingScript:
    """A folder, a port, and the script for both. A context manager, which stops what runs and removes the folder.

    Attributes:
        folder: its own; PostgreSQL's user can enter it, other than pytest's.
        uri: the server's address.
    """

    def __init__(self) -> None:
        self._top = Path(tempfile.mkdtemp(prefix="mian-"))
        self._top.chmod(0o755)
        self.folder = self._top / "tracking server"
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> TrackingScript:
        return self

    def __exit__(self, *error: object) -> None:
        if self.folder.exists():
            self.run("stop")
        shutil.rmtree(self._top)

    def command(self, action: str, *options: str) -> list[str]:
        """The command line of an action."""
        port = ["--port", str(self._port)] if action == "start" else []
        return ["bash", str(SCRIPT), action, "--folder", str(self.folder), *port, *options]

    def run(self, action: str, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run an action to its end, which has this exit code; options that are given twice count as they are given last."""
        done = subprocess.run(
            self.command(action, *options), env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Of the script: this interpreter has MLflow."""
        return os.environ | {"PYTHON": sys.executable}

    def start(self) -> str:
        """Start what does not run; what the script said."""
        started = self.run("start")
        assert started.stdout == f"MLFLOW_TRACKING_URI={self.uri}\n"
        return started.stderr

    def kill_server(self) -> None:
        """SIGKILL all processes of the server."""
        os.killpg(int((self.folder / "server.pid").read_text()), signal.SIGKILL)

    def stop_database(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop PostgreSQL, at once (SIGQUIT) or as a machine without power (SIGKILL), and wait for its end."""
        process = self.database()
        assert process is not None
        process.send_signal(how)
        process.wait(60)

    def database(self) -> psutil.Process | None:
        """PostgreSQL's first process, where it runs."""
        try:
            return psutil.Process(int((self.folder / "database/data/postmaster.pid").read_text().split()[0]))
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def processes(self) -> list[str]:
        """Command lines of all that runs for the folder, but for those that end within some seconds."""
        pattern = re.compile(re.escape(str(self._top)))
        deadline = time.monotonic() + 15
        while found := [" ".join(line) for line in map(_command_line, psutil.process_iter()) if pattern.search(" ".join(line))]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
