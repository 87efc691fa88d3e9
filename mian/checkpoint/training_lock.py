"""One process at a time works on a training."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from types import TracebackType

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class AlreadyRunningError(RuntimeError):
    """Another process works on this training."""


class TrainingLock:
    """A lock on a file, which the system opens when its holder ends, however it does; the file says who that is.

    Where no file can be written there is no checkpoint to protect, and no lock. Its folder goes with it where it is empty then.

    Args:
        path: of the file; it is there as long as the lock is held, or its holder was killed.

    Raises:
        AlreadyRunningError: on entering: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def __enter__(self) -> TrainingLock:
        try:
            while self._file is None:
                self._file = self._locked()
            holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
            self._path.write_text(holder, encoding="utf-8")  # it stays open for reading alone: a disk may become read-only
        except BlockingIOError:
            raise AlreadyRunningError(
                f"this training is running already, {holder_of(self._path)}; wait for it, or stop it ({self._path} is locked)"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                log.warning(
                    "%s: this file system has no locks (%s); see that no second process trains the same", self._path, error
                )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._file)
        self._file = None
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()

    def _locked(self) -> int | None:
        """The locked file; None where the one that held it has just removed it, or its folder."""
        try:
            return self._locked_as(os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return self._locked_as(os.O_RDWR)  # NFS locks no file that is open for reading alone

    def _locked_as(self, mode: int) -> int | None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self._path, mode | os.O_CREAT, 0o644)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._path.exists() and os.path.samestat(self._path.stat(), os.fstat(file)):
                return file
        except OSError:
            os.close(file)
            raise
        os.close(file)
        return None


def holder_of(path: Path) -> str:
    """Who holds a lock, as far as its file says."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"on host {holder['host']} as process {holder['pid']}"
    except (OSError, ValueError, KeyError):
        return "in a process that has not said its name yet"
