"""A folder of scores: what is finished, and how a finished day comes to its place.

    _manifest.json                                     the finished days, their files and checksums
    day=2026-01-31/part-00000-CHECKSUM.parquet         scores
    day=2026-01-31/_quarantine-00000-CHECKSUM.parquet  rows that broke a rule
    _locks/000012.json                                 who may write; see pipeline.dataset.lock
    _runs/NAME.json                                    when a run that has not ended began
    _staging/PROCESS/                                  what a run writes first
    _replaced/day=2026-01-31/                          a day that is being scored anew

A day's folder is renamed into its place when it is whole, and then named by the manifest. What readers of the folder see of a day is
all of it or nothing. Names that begin with ``_`` are hidden from readers of Parquet folders.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Mapping

from mian.contract import ContractError
from pipeline.dataset.lock import LOCKS, DatasetLock
from pipeline.io.files import Files
from pipeline.scoring.manifest import MANIFEST_FILE, Manifest, ScoredDay

log = logging.getLogger(__name__)

RUNS, STAGING, REPLACED = "_runs", "_staging", "_replaced"
#: What a folder may hold before it has a manifest.
_BEGUN = {LOCKS, RUNS, STAGING, REPLACED}
_DAY = re.compile(r"day=\d{4}-\d{2}-\d{2}")


class ScoresFolder:
    """Everything below one folder of scores.

    Args:
        files: the file system.
        folder: where it is.
        name: the data set's name.
    """

    def __init__(self, files: Files, folder: str, name: str) -> None:
        self._files = files
        self.folder = folder.rstrip("/")
        self._name = name

    def manifest(self) -> Manifest:
        """The finished days; none where nothing is finished.

        Raises:
            ContractError: the manifest cannot be read.
        """
        path = f"{self.folder}/{MANIFEST_FILE}"
        if self._files.info(path) is None:
            return Manifest(name=self._name)
        return Manifest.from_json(self._files.read_bytes(path).decode("utf-8", "replace"), path)

    def refuse_foreign(self) -> None:
        """Make sure that the folder is empty, or holds scores of this data set.

        Raises:
            ContractError: it holds something else.
        """
        names = self._files.children(self.folder)
        if MANIFEST_FILE in names:
            found = self.manifest().name
            if found != self._name:
                raise ContractError(
                    f"{self.folder}: holds scores of the data set {found!r}, and the configuration is of {self._name!r}; name another "
                    "--output"
                )
            return
        others = [name for name in names if name not in _BEGUN and not (RUNS in names and _DAY.fullmatch(name))]
        if others:
            raise ContractError(
                f"{self.folder}: not empty, and holds no scores ({', '.join(others[:3])}{' ...' * (len(others) > 3)}); name an empty "
                "folder, or one that is not there yet, as --output"
            )

    def recover(self) -> None:
        """Bring the folder to the state that the manifest names. Only the holder of the lock may do that."""
        manifest = self.manifest()
        named = {f"day={day.day}": day for day in manifest.days}
        for name in self._files.children(f"{self.folder}/{REPLACED}"):
            if name in named and not self.damaged(named[name]):
                self._files.remove(f"{self.folder}/{REPLACED}/{name}")  # the new one was published
                continue
            if self._files.exists(f"{self.folder}/{name}"):
                self._files.replace(f"{self.folder}/{name}", f"{self.folder}/{STAGING}/unfinished/{name}")
            self._files.replace(f"{self.folder}/{REPLACED}/{name}", f"{self.folder}/{name}")
        for name in self._files.children(self.folder):
            if _DAY.fullmatch(name) and name not in named:
                self._files.replace(f"{self.folder}/{name}", f"{self.folder}/{STAGING}/unfinished/{name}")
        self._files.remove(f"{self.folder}/{STAGING}")
        self._files.remove_empty(f"{self.folder}/{REPLACED}")

    def damaged(self, day: ScoredDay) -> str:
        """What is wrong with the files of a finished day; empty where they are there, each of its size."""
        for file in day.named_files:
            info = self._files.info(f"{self.folder}/{file.path}")
            if info is None or info.size != file.bytes:
                return f"{file.path} {'is missing' if info is None else f'has {info.size} bytes in place of {file.bytes}'}"
        return ""

    def begin(self, run: str, moment: dt.datetime | None) -> dt.datetime:
        """The moment at which a run began; that of the first one where this one goes on with it.

        Args:
            run: its name, see :func:`pipeline.scoring.manifest.run_identity`.
            moment: the moment that is to count instead.
        """
        path = self._run(run)
        if moment is None and self._files.info(path) is not None:
            return dt.datetime.fromisoformat(str(json.loads(self._files.read_bytes(path))["scored_at"]))
        moment = moment or dt.datetime.now(dt.timezone.utc)
        self._files.write(path, json.dumps({"scored_at": moment.isoformat()}).encode())
        return moment

    def end(self, run: str) -> None:
        """Forget when a run began: all its days are finished."""
        self._files.remove(self._run(run))
        self._files.remove_empty(f"{self.folder}/{RUNS}")

    def _run(self, run: str) -> str:
        return f"{self.folder}/{RUNS}/{run[:32]}.json"

    def staging(self, process: str) -> str:
        """Where a process writes its files first."""
        return f"{self.folder}/{STAGING}/{process}"

    def publish(self, day: ScoredDay, staged: Mapping[str, str], staging: str, lock: DatasetLock) -> None:
        """Bring a day to its place.

        Args:
            day: it names all of its files.
            staged: written files, their names in the folder by their paths.
            staging: see :meth:`staging`.
            lock: the right to write.

        Raises:
            DatasetLockedError: the lock was lost; the day is as it was.
        """
        lock.check()
        name, ready = f"day={day.day}", f"{staging}/ready"
        for path, target in staged.items():
            self._files.replace(path, f"{ready}/{target}")
        replaced = f"{self.folder}/{REPLACED}/{name}"
        lock.check()
        if self._files.exists(f"{self.folder}/{name}"):
            self._files.replace(f"{self.folder}/{name}", replaced)
        self._files.replace(f"{ready}/{name}", f"{self.folder}/{name}")
        self._files.write(f"{self.folder}/{MANIFEST_FILE}", self.manifest().with_day(day).to_json().encode())
        self._files.remove(replaced)
        self._files.remove_empty(f"{self.folder}/{REPLACED}")

    def remove_staging(self, staging: str) -> None:
        """Remove what a process has written first."""
        self._files.remove(staging)
        self._files.remove_empty(f"{self.folder}/{STAGING}")
