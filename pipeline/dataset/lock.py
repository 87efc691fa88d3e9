"""One build at a time in one data set, on any file system that can create a file exclusively.

Locks are numbered files. Who creates the next number, which one process alone can, holds the lock, and nobody else ever writes that
file; its holder renews it. The number is the fencing token: a holder that sees a greater one has lost the lock.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

import psutil

from mian.contract import ContractError
from pipeline.io.files import Files

log = logging.getLogger(__name__)

LOCKS = "_locks"
LOCK_FILE = re.compile(r"(\d{6,})\.json")

#: A lock that was not renewed for so long is of a build that died.
STALE_SECONDS = 120.0
RENEW_SECONDS = 20.0
#: A holder that could not renew its lock for so long gives it up, before another build takes it for dead.
LOST_SECONDS = 80.0


class DatasetLockedError(ContractError):
    """Another build works on the data set, or has taken it over."""


class DatasetLock:
    """The right to write into a data set's folder, from entering the context to leaving it.

    A holder of this machine that is gone is seen at once. Any other, also one that cannot be seen from here, such as one in a
    container, counts as dead when its lock was not renewed for :data:`STALE_SECONDS`.

    Args:
        files: the file system.
        folder: the data set.
        wait: seconds to wait for another build before giving up.
        after: a fencing token that this lock's is to be greater than, also where the files of earlier locks were removed.
        activity: what holders of this kind of lock do, in words.
    """

    def __init__(
        self, files: Files, folder: str, wait: float = 0.0, *, after: int = 0, activity: str = "builds this data set"
    ) -> None:
        self._files = files
        self._folder = folder.rstrip("/")
        self._locks = f"{self._folder}/{LOCKS}"
        self._wait = wait
        self._after = after
        self._activity = activity
        self._made_folder = False
        self._number = 0
        process = psutil.Process()
        self._owner = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": process.pid,
            "started": process.create_time(),
            "id": uuid.uuid4().hex,
        }
        self._renewed = 0.0
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="dataset-lock", daemon=True)

    @property
    def token(self) -> int:
        """The fencing token: the number of the lock, greater than that of every lock before it."""
        return self._number

    def __enter__(self) -> DatasetLock:
        """Take the lock.

        Raises:
            DatasetLockedError: another build has it, and still has after the wait.
        """
        self._made_folder = not self._files.exists(self._folder)
        deadline = time.monotonic() + self._wait
        said = False
        while (holder := self._claim()) is not None:
            if time.monotonic() >= deadline:
                raise DatasetLockedError(
                    f"{self._path(holder['number'])}: {_who(holder)} {self._activity} now; wait until it has ended, or "
                    "wait for it with --wait SECONDS"
                )
            if not said:
                log.info("waiting for %s, which %s", _who(holder), self._activity)
                said = True
            time.sleep(1.0)
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the lock back. Its file stays, so that the next number is a greater one; where nothing else was made, all goes."""
        self._done.set()
        self._renewer.join()
        if self._is_lost():
            return
        if self._made_folder and self._files.children(self._folder) == [LOCKS]:
            self._files.remove(self._path(self._number))
            self._files.remove_empty(self._locks)
            self._files.remove_empty(self._folder)
            return
        try:
            self._write({"released": True})
        except OSError:  # a full disk: removing takes no room
            self._files.remove(self._path(self._number))
            raise

    def check(self) -> None:
        """Make sure that the lock is still held; to be called right before anything is written or removed.

        Raises:
            DatasetLockedError: it is not.
        """
        if self._is_lost():
            raise DatasetLockedError(
                f"{self._path(self._number)}: this build lost its lock: it could not renew it for {LOST_SECONDS:.0f} s, or another "
                "build took it over. What was published before stays; build again"
            )

    def _claim(self) -> dict[str, Any] | None:
        """Try to take the lock; its holder where that is another."""
        while True:
            number = max(self._numbers(), default=0)
            holder = self._read(number) if number else None
            if holder is not None and self._is_alive(holder):
                return holder | {"number": number}
            self._number = max(number, self._after) + 1
            self._renewed = time.monotonic()
            if self._files.create(self._path(self._number), self._content({})):
                if max(self._numbers(), default=0) == self._number:
                    break
                self._files.remove(self._path(self._number))  # others came and went since the numbers were read
        if holder is not None and not holder.get("released"):
            log.info("%s left a lock and is gone; going on", _who(holder))
        for earlier in self._numbers():
            if earlier < self._number:
                self._files.remove(self._path(earlier))
        return None

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if holder.get("released"):
            return False
        if holder.get("machine") == self._owner["machine"]:
            try:
                process = psutil.Process(int(holder["pid"]))
                return abs(process.create_time() - float(holder["started"])) < 1.0
            except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
                return False
        return self._now() - float(holder["renewed"]) < STALE_SECONDS

    def _now(self) -> float:
        """The file system's clock, which is the one that says when a lock was renewed."""
        probe = f"{self._locks}/{uuid.uuid4().hex}.clock"
        self._files.write(probe, b"")
        info = self._files.info(probe)
        self._files.remove(probe)
        return info.modified / 1000 if info is not None else time.time()

    def _numbers(self) -> list[int]:
        return [int(found[1]) for name in self._files.children(self._locks) if (found := LOCK_FILE.fullmatch(name))]

    def _path(self, number: int) -> str:
        return f"{self._locks}/{number:06d}.json"

    def _read(self, number: int) -> dict[str, Any] | None:
        """What a lock says, and when it was written (``renewed``); None where it is gone."""
        info = self._files.info(self._path(number))
        if info is None:
            return None
        try:
            found = json.loads(self._files.read_bytes(self._path(number)))
        except (ValueError, OSError):
            found = None  # a lock whose content is not there yet is somebody's
        return (found if isinstance(found, dict) else {}) | {"renewed": info.modified / 1000}

    def _content(self, more: dict[str, Any]) -> bytes:
        return json.dumps(self._owner | more).encode()

    def _write(self, more: dict[str, Any]) -> None:
        self._files.write(self._path(self._number), self._content(more))

    def _is_lost(self) -> bool:
        if time.monotonic() - self._renewed > LOST_SECONDS:
            return True
        numbers = self._numbers()
        if not numbers or max(numbers) > self._number:
            return True
        return (self._read(self._number) or {}).get("id") != self._owner["id"]

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            self._renew_once()

    def _renew_once(self) -> None:
        try:
            if not self._is_lost():
                self._write({})
                self._renewed = time.monotonic()
        except Exception as error:  # noqa: BLE001  whatever a file system says; the next try may go well
            log.warning("%s: the lock could not be renewed: %s", self._path(self._number), error)


def _machine() -> str:
    """What tells processes that can see each other from others: host, start of its kernel, and container."""
    try:
        kernel = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        container = str(pathlib.Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux: the host alone
        kernel = container = ""
    return f"{socket.gethostname()} {kernel} {container}"


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}"


def this_process() -> str:
    """A name for this process among all that may write into one folder."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
