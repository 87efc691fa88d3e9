"""What a data set's folder needs of a file system, and the files of this machine."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class FileInfo:
    """A file: its path, its size in bytes, the time of its last change in ms since 1970."""

    path: str
    size: int
    modified: int


#: Characters that make a path a pattern for Hadoop and Spark.
_PATTERN = re.compile(r"([*?\[\]{}\\])")
#: What a file system says that has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)


def plain(path: str) -> str:
    """A local path without the scheme, which Spark's readers and Hadoop each write differently."""
    return re.sub("^file:/+", "/", path)


def literal(path: str) -> str:
    """A path for Spark's readers, which would take some characters of a name for a pattern."""
    return _PATTERN.sub(r"\\\1", path)


def is_hidden(name: str) -> bool:
    """Whether Spark's readers pass over a file or folder of this name."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


class Files(Protocol):
    """The file operations that a data set's folder needs."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""

    def children(self, folder: str) -> list[str]:
        """The names of the files and folders in a folder, in order; none where there is no such folder."""

    def files(self, path: str) -> Iterator[FileInfo]:
        """All files below a folder (or the file itself) that Spark's readers would read."""

    def info(self, path: str) -> FileInfo | None:
        """What is known of a file; None where there is none."""

    def read_bytes(self, path: str) -> bytes:
        """A small file."""

    def sha256(self, path: str) -> str:
        """The checksum of a file, hexadecimal."""

    def write(self, path: str, content: bytes) -> None:
        """Write a small file so that a reader sees the old one or the new one, never a part."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file that is not there yet; False, and nothing written, where there is one.

        Of several that try at one moment one succeeds, on local disks and HDFS. Object stores promise less: see
        ``docs/tutorials/cluster.md``.
        """

    def replace(self, source: str, target: str) -> None:
        """Rename a file onto another's name, atomically where the file system can."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing where it is not there."""

    def remove_empty(self, folder: str) -> None:
        """Remove a folder if nothing is in it."""


class LocalFiles:
    """The files of this machine, through Python."""

    def exists(self, path: str) -> bool:
        """See :class:`Files`."""
        return _local(path).exists()

    def children(self, folder: str) -> list[str]:
        """See :class:`Files`."""
        try:
            return sorted(path.name for path in _local(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, path: str) -> Iterator[FileInfo]:
        """See :class:`Files`."""
        root = _local(path)
        if root.is_file():
            yield _info(root)
            return
        seen = {root.resolve()}
        for folder, folders, names in os.walk(root, followlinks=True):
            # a link to a folder that holds it would have no end
            places = {name: pathlib.Path(folder, name).resolve() for name in folders if not is_hidden(name)}
            folders[:] = sorted(name for name, place in places.items() if place not in seen)
            seen.update(places.values())
            yield from (_info(pathlib.Path(folder, name)) for name in sorted(names) if not is_hidden(name))

    def info(self, path: str) -> FileInfo | None:
        """See :class:`Files`."""
        place = _local(path)
        return _info(place) if place.is_file() else None

    def read_bytes(self, path: str) -> bytes:
        """See :class:`Files`."""
        return _local(path).read_bytes()

    def sha256(self, path: str) -> str:
        """See :class:`Files`."""
        digest = hashlib.sha256()
        with _local(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def write(self, path: str, content: bytes) -> None:
        """See :class:`Files`."""
        place = _local(path)
        temporary = _written(place, content)
        try:
            temporary.replace(place)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def create(self, path: str, content: bytes) -> bool:
        """See :class:`Files`."""
        place = _local(path)
        temporary = _written(place, content)
        try:
            os.link(temporary, place)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_exclusively(place, content)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def replace(self, source: str, target: str) -> None:
        """See :class:`Files`."""
        place = _local(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        _local(source).replace(place)

    def remove(self, path: str) -> None:
        """See :class:`Files`."""
        place = _local(path)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    def remove_empty(self, folder: str) -> None:
        """See :class:`Files`."""
        with contextlib.suppress(OSError):
            _local(folder).rmdir()


def _local(path: str) -> pathlib.Path:
    return pathlib.Path(plain(path))


def _info(place: pathlib.Path) -> FileInfo:
    status = place.stat()
    return FileInfo(str(place.absolute()), status.st_size, status.st_mtime_ns // 1_000_000)


def temporary_name(path: str) -> str:
    """A name beside a path that no other process takes."""
    return f"{path}.{uuid.uuid4().hex[:8]}.tmp"


def _written(place: pathlib.Path, content: bytes) -> pathlib.Path:
    """A new file beside a place, whole and on the disk."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(temporary_name(str(place)))
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _create_exclusively(place: pathlib.Path, content: bytes) -> bool:
    try:
        with place.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True
