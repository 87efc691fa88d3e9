"""One build at a time in one data set, on any file system."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType

import psutil

from pipeline.contract import ContractError
from pipeline.storage import Storage

log = logging.getLogger(__name__)

LOCK_FILE = "_build.lock"

#: A lock that was not renewed for so long is of a build that died.
STALE_SECONDS = 120.0
RENEW_SECONDS = 20.0
#: So long a claim has to stand before it counts: a second builder may have seen no lock at the same moment.
SETTLE_SECONDS = 0.5


class DatasetLockedError(ContractError):
    """Another build works on the data set."""


class DatasetLock:
    """A file that says who builds, renewed while the build lives.

    A builder on this machine that is gone is seen at once; one on another machine when its lock was not renewed for
    :data:`STALE_SECONDS`. What a killed build left behind is then the next one's to clean.

    Args:
        storage: the file system.
        folder: the data set.
        wait: seconds to wait for another build before giving up.
    """

    def __init__(self, storage: Storage, folder: str, wait: float = 0.0) -> None:
        self._storage = storage
        self._folder = folder.rstrip("/")
        self._path = f"{self._folder}/{LOCK_FILE}"
        self._wait = wait
        process = psutil.Process()
        self._owner = {
            "host": socket.gethostname(),
            "pid": process.pid,
            "started": process.create_time(),
            "token": uuid.uuid4().hex,
        }
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="dataset-lock", daemon=True)

    def __enter__(self) -> DatasetLock:
        """Take the lock.

        Raises:
            DatasetLockedError: another build has it, and still has after the wait.
        """
        deadline = time.monotonic() + self._wait
        said = False
        while not self._claim():
            holder = self._holder() or {}
            if time.monotonic() >= deadline:
                raise DatasetLockedError(
                    f"{self._path}: process {holder.get('pid')} on {holder.get('host')} builds this data set now; wait until it has "
                    "ended, or let this build wait with --wait SECONDS"
                )
            if not said:
                log.info("waiting for process %s on %s, which builds this data set", holder.get("pid"), holder.get("host"))
                said = True
            time.sleep(1.0)
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the lock back."""
        self._done.set()
        self._renewer.join()
        if (self._holder() or {}).get("token") == self._owner["token"]:
            self._storage.remove(self._path)
            self._storage.remove_empty(self._folder)  # it was there for the lock alone

    def _claim(self) -> bool:
        holder = self._holder()
        if holder is not None and self._alive(holder):
            return False
        if holder is not None:
            log.info("process %s on %s left a lock and is gone; going on", holder.get("pid"), holder.get("host"))
        self._write()
        time.sleep(SETTLE_SECONDS)  # of builders that came at the same moment the last one to write has it
        return (self._holder() or {}).get("token") == self._owner["token"]

    def _alive(self, holder: dict[str, object]) -> bool:
        if holder.get("host") == self._owner["host"]:
            try:
                process = psutil.Process(int(str(holder.get("pid"))))
                return abs(process.create_time() - float(str(holder.get("started")))) < 1.0
            except (psutil.NoSuchProcess, ValueError):
                return False
        return time.time() - float(str(holder.get("renewed", 0.0))) < STALE_SECONDS

    def _holder(self) -> dict[str, object] | None:
        try:
            found = json.loads(self._storage.read_text(self._path)) if self._storage.exists(self._path) else None
        except (ValueError, OSError):
            return {}  # half a lock is no one's
        return found if isinstance(found, dict) else None

    def _write(self) -> None:
        self._storage.write(self._path, json.dumps({**self._owner, "renewed": time.time()}).encode())

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            self._write()


def this_process() -> str:
    """A name for this process among all that may write into one folder."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
