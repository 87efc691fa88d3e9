"""A ranking server as a process of its own, as ``jobs/serve.py`` starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "serve.py"
PATIENCE = 120.0
"""Seconds after which what a test waits for does not come."""


class RankingServer:
    """A running server.

    Args:
        process: of the server, with its standard error piped.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = ""

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def said(self) -> str:
        """All that the server wrote to its standard error."""
        return "\n".join(self.lines)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.process.poll() is not None or "ready: " in self.said)
        match = re.search(r"ready: .* on (http://\S+)", self.said)
        assert match is not None, self.said
        self.url = match[1]

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE)

    def post(self, body: Any, **options: Any) -> requests.Response:
        """Ask for scores; a body that is no bytes is sent as JSON."""
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        given = {"data": body} if isinstance(body, (bytes, Iterator)) else {"json": body}
        return requests.post(self.url + "/v1/score", headers=headers, timeout=PATIENCE, **given, **options)

    def metrics(self) -> dict[str, float]:
        """By name and labels, as the text has them."""
        lines = self.get("/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}

    def resident_bytes(self) -> float:
        return self.metrics()["process_resident_memory_bytes"]

    def end(self) -> int:
        """Send SIGTERM, and the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code


@contextmanager
def ranking_server(
    model: Path | str, *arguments: str, environment: Mapping[str, str] | None = None, program: tuple[str, ...] = (str(JOB),)
) -> Iterator[RankingServer]:
    """Start a server at a free port, and kill it at the end where it still runs."""
    with start_server(model, *arguments, environment=environment, program=program) as server:
        server.wait_until_ready()
        yield server


@contextmanager
def start_server(
    model: Path | str, *arguments: str, environment: Mapping[str, str] | None = None, program: tuple[str, ...] = (str(JOB),)
) -> Iterator[RankingServer]:
    """The same, without waiting for it."""
    given = [*program, "--model", str(model), *([] if "--port" in arguments else ["--port", "0"]), *arguments]
    process = subprocess.Popen(
        [sys.executable, *given],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    server = RankingServer(process)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        server.wait()


def wait_for(happened: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.05)
