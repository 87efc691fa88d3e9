"""The steps of a night: each runs a job, and leaves a mark that says what came of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import mlflow
from pydantic import BaseModel, ConfigDict, ValidationError

from mian.atomic_write import write_atomically
from mian.contract.document import fingerprint
from mian.nightly.plan import NightError

JOBS = Path(__file__).resolve().parents[2] / "jobs"
MARKS, LOGS = "marks", "logs"
STOPPED = 75
"""Exit code of a training that was asked to stop and can go on."""

log = logging.getLogger(__name__)


class Mark(BaseModel):
    """A step that is done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    fingerprint: str
    """Of the plan, and of what the steps before left."""
    result: dict[str, Any]
    """What later steps go by."""
    seconds: float


class Night:
    """The folder of a night, with the marks of its steps.

    Args:
        folder: Of this night.
        settings: Fingerprint of its plan.

    Attributes:
        folder: The same.
        marks: Those of the steps that are done, in order.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self._settings = settings
        self.marks: list[Mark] = []

    def step(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a step unless it is done; what came of it.

        A step is done again where anything before it came out differently.

        Args:
            name: Of the step.
            work: Does it and returns what later steps go by, as JSON values.
        """
        path = self.folder / MARKS / f"{len(self.marks) + 1}-{name}.json"
        wanted = fingerprint([self._settings, name, [mark.result for mark in self.marks]])
        mark = _read(path)
        if mark is None or mark.fingerprint != wanted:
            log.info("%s ...", name)
            began = time.monotonic()
            result = work()
            mark = Mark(step=name, fingerprint=wanted, result=result, seconds=round(time.monotonic() - began, 1))
            write_atomically(path, mark.model_dump_json(indent=1) + "\n")
            log.info("%s: done in %.0f s", name, mark.seconds)
        self.marks.append(mark)
        return mark.result

    def job(self, name: str, command: Sequence[str], good: Sequence[int] = (0,)) -> int:
        """Run a job to its end; its exit code. Its output goes to a log of its own.

        Args:
            name: Of the log.
            command: The command.
            good: Exit codes that are no failure.

        Raises:
            NightError: It ended with another one, or was asked to stop, as by a SIGTERM to this process.
        """
        path = self.folder / LOGS / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as output:
            output.write(f"$ {' '.join(command)}\n".encode())
            output.flush()
            try:
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
            except OSError as error:
                raise NightError(
                    f"{name}: {command[0]} cannot be started ({error}); install it, or name it in the configuration"
                ) from error
            with _passes_on_sigterm(process) as stopped:
                code = process.wait()
        if code == STOPPED or stopped:
            raise NightError(f"{name}: it was asked to stop and can go on; start the night again")
        if code not in good:
            raise NightError(f"{name}: exit code {code}{_error_in(path)}; mend it and start the night again (log: {path})")
        return code


def python_job(name: str, *arguments: str) -> list[str]:
    """The command of a job that needs no launcher."""
    return [sys.executable, str(JOBS / f"{name}.py"), *arguments]


def text_override(key: str, text: str) -> str:
    """``KEY=VALUE`` for a job, of a text that is to stay one: YAML takes a path such as ``a: b`` for something else."""
    return f"{key}={json.dumps(text, ensure_ascii=False)}"


def environment() -> dict[str, str]:
    """That of this process, with the project where Python looks first, and the tracking store that this process uses."""
    paths = [str(JOBS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}


@contextmanager
def _passes_on_sigterm(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Have a job end with its night, or it would be at work beside that of the next start; SIGTERMs that came are in the list."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _error_in(path: Path) -> str:
    """The last line in which a job said why it ended, if it did."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = next((line for line in reversed(lines) if "error: " in line), None)
    return "" if found is None else f", {found[found.index('error: ') :]}"


def _read(path: Path) -> Mark | None:
    try:
        return Mark.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, json.JSONDecodeError) as error:
        raise NightError(f"{path}: damaged; remove it to do the step again") from error
