"""What a run was told, kept on the disk until the tracking store has it."""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

JOURNALS = "tracking"
"""In the output folder: journals of trainings that have not ended, by key, and of models that the tracking store lacks, by name."""
JOURNAL_FILE = "journal.jsonl"
FILES = "files"
PART = "file.part"


class Point(NamedTuple):
    """A metric's value at a step; ``at`` is in milliseconds since 1970."""

    name: str
    value: float
    at: int
    step: int


class Journal:
    """Everything that a training reports, in a file that only grows, and the files that wait to be uploaded.

    A journal outlives its process: the next process of the same training sends what the run lacks. What the run has already is not sent
    again, such as the metrics of steps that are done a second time, after a return to a checkpoint. Entries that cannot be written to
    the disk are kept in memory, and written with the next entry.

    Args:
        folder: the folder of the journal, which no other training uses; it is made with the first entry.
        training: the id that a new journal gives the training; drawn at random if it is not given.

    Attributes:
        training: the id of the training.
        points: all metrics so far, each name and step once.
        files: the files that wait to be uploaded, by the names that they get in the run.
        notes: other values to remember, by name.
    """

    def __init__(self, folder: Path, training: str | None = None) -> None:
        self.folder = folder
        self.points: list[Point] = []
        self.files: dict[str, bytes] = {}
        self.notes: dict[str, str] = {}
        self._known: set[tuple[str, int]] = set()
        self._sent: dict[str, int] = {}
        self._fails = False
        self._cut_off = False
        self._unwritten: list[str] = []
        self._guard(self._read)
        self.training = self.notes.get("training") or training or uuid.uuid4().hex

    @property
    def exists(self) -> bool:
        """Whether anything of it is on the disk."""
        return (self.folder / JOURNAL_FILE).exists()

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep metrics of a step; those that were reported before, by this process or another, are left out."""
        new = {name: float(value) for name, value in metrics.items() if (name, step) not in self._known}
        if new:
            self._add({"at": int(time.time() * 1000), "step": step, "metrics": new})

    def attach(self, name: str, content: bytes) -> None:
        """Keep a file that is to be uploaded."""
        self.files[name] = content
        path, part = self.folder / FILES / name, self.folder / PART

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(path)

        self._guard(write)

    def uploaded(self, name: str) -> None:
        """Forget a file that the run has."""
        self.files.pop(name, None)
        self._guard(lambda: (self.folder / FILES / name).unlink(missing_ok=True))

    def waiting(self, run_id: str) -> list[Point]:
        """The metrics that a run does not have yet."""
        return self.points[self._sent.get(run_id, 0) :]

    def sent(self, run_id: str, count: int) -> None:
        """Remember that a run has so many more."""
        self._add({"run": run_id, "sent": self._sent.get(run_id, 0) + count})

    def note(self, name: str, value: str) -> None:
        """Keep a named value, such as the id of the run, until the journal is removed."""
        if self.notes.get(name) != value:
            self._add({"note": name, "value": value})

    def move(self, folder: Path) -> None:
        """Move what is on the disk to another folder, on the same disk."""
        if self.exists:
            shutil.rmtree(folder, ignore_errors=True)
            self._guard(lambda: self.folder.rename(folder))
        self.folder = folder

    def remove(self) -> None:
        """Remove it, and the folder above where no other training has one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _add(self, entry: dict[str, Any]) -> None:
        entries = [entry]
        if not self.exists:
            entries = [{"note": "training", "value": self.training}, entry]
        for each in entries:
            self._take(each)
        self._unwritten += [json.dumps(each, ensure_ascii=False) + "\n" for each in entries]

        def append() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = "\n" * self._cut_off + "".join(self._unwritten)
            self._cut_off = True  # until all of it is written; an entry that is there twice counts once
            with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
                file.write(text)
            self._cut_off = False
            self._unwritten.clear()

        self._guard(append)

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "metrics" in entry:
            for name, value in entry["metrics"].items():
                if (name, entry["step"]) not in self._known:
                    self._known.add((name, entry["step"]))
                    self.points.append(Point(name, value, entry["at"], entry["step"]))
        elif "sent" in entry:
            self._sent[entry["run"]] = entry["sent"]
        elif "note" in entry:
            self.notes[entry["note"]] = entry["value"]

    def _read(self) -> None:
        path = self.folder / JOURNAL_FILE
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            self._cut_off = bool(content) and not content.endswith(b"\n")
            for entry in _entries(content):
                self._take(entry)
        files = self.folder / FILES
        for file in sorted(files.rglob("*")):
            if file.is_file():
                self.files[str(file.relative_to(files))] = file.read_bytes()

    def _guard(self, write: Callable[[], object]) -> None:
        """Do without the disk where it fails; that is said once."""
        try:
            write()
        except OSError as error:
            if not self._fails:
                log.warning("%s: what the run is told cannot be kept there (%s)", self.folder, error)
            self._fails = True


def _entries(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines of a journal; one that was cut off when its process was killed is left out."""
    for line in content.split(b"\n"):
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry
