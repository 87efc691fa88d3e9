"""Files through Hadoop's file system API: local paths, ``hdfs://``, ``s3a://`` or whatever the cluster has."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession


@dataclass(frozen=True)
class FileInfo:
    """A file: its path as Hadoop names it, its size in bytes, the time of its last change in ms since 1970."""

    path: str
    size: int
    modified: int


#: Which file system a path is of: its scheme and authority.
_SYSTEM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?")


@dataclass(frozen=True)
class _System:
    """One of Hadoop's file systems, and whether it is that of this machine."""

    files: Any
    local: bool


def plain(path: str) -> str:
    """A local path without the scheme, which Spark's readers and Hadoop each write differently."""
    return re.sub("^file:/+", "/", path)


class Storage:
    """The file operations that publishing needs.

    Args:
        spark: the session whose Hadoop configuration says how each kind of path is reached.
    """

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext
        self._jvm = context._jvm
        self._hadoop = self._jvm.org.apache.hadoop.fs
        rename = self._hadoop.Options.Rename
        self._overwrite = context._gateway.new_array(rename, 1)
        self._overwrite[0] = rename.OVERWRITE
        self._conf = context._jsc.hadoopConfiguration()
        # each step through a name or an object of the JVM is a message to it and back
        self._path = self._hadoop.Path
        self._systems: dict[str, _System] = {}

    def _system(self, path: str) -> _System:
        found = _SYSTEM.match(path)
        name = found[0] if found is not None else ""
        if name not in self._systems:
            system = self._path(path).getFileSystem(self._conf)
            self._systems[name] = _System(system, system.getUri().getScheme() == "file")
        return self._systems[name]

    def _fs(self, path: str) -> Any:
        return self._system(path).files

    def _local(self, path: str) -> pathlib.Path | None:
        """A local path as Python's own; None for one of another file system."""
        if not self._system(path).local:
            return None
        return pathlib.Path(plain(path if path.startswith(("/", "file:")) else self.qualified(path)))

    def qualified(self, path: str) -> str:
        """The path with its scheme and, where it is relative, the working folder."""
        return str(self._fs(path).makeQualified(self._path(path)))

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""
        return bool(self._fs(path).exists(self._path(path)))

    def glob(self, pattern: str) -> list[str]:
        """The paths that a pattern matches; a plain path matches itself where it is there."""
        found = self._fs(pattern).globStatus(self._path(pattern))
        return sorted(str(status.getPath()) for status in (found or []))

    def children(self, folder: str) -> list[str]:
        """The paths of the files and folders in a folder; much faster than :meth:`files`, which asks for sizes."""
        listed = self._fs(folder).listStatus(self._path(folder))
        return [str(path) for path in self._hadoop.FileUtil.stat2Paths(listed)]

    def files(self, path: str) -> Iterator[FileInfo]:
        """All files below a folder (or the file itself), but for those whose own name begins with ``_`` or ``.``."""
        walker = self._fs(path).listFiles(self._path(path), True)
        while walker.hasNext():
            status = walker.next()
            found = str(status.getPath())
            if not found.rpartition("/")[2].startswith(("_", ".")):
                yield FileInfo(found, status.getLen(), status.getModificationTime())

    def read_text(self, path: str) -> str:
        """A small UTF-8 file."""
        return self.read_bytes(path).decode("utf-8")

    def read_bytes(self, path: str) -> bytes:
        """A small file."""
        stream = self._fs(path).open(self._path(path))
        try:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def write(self, path: str, content: bytes) -> None:
        """Write a small file so that a reader sees the old one or the new one, never a part."""
        temporary = path + ".tmp"
        stream = self._fs(path).create(self._path(temporary), True)
        try:
            stream.write(bytearray(content))
        finally:
            stream.close()
        self.replace(temporary, path)

    def replace(self, source: str, target: str) -> None:
        """Rename a file onto another's name, atomically where the file system can."""
        here, there = self._local(source), self._local(target)
        if here is not None and there is not None:
            # Hadoop's local file system first removes the target, and a stop in between would leave neither
            there.parent.mkdir(parents=True, exist_ok=True)
            here.replace(there)
            return
        fs, source_path, target_path = self._fs(target), self._path(source), self._path(target)
        fs.mkdirs(target_path.getParent())
        target_path = fs.makeQualified(target_path)
        context = self._hadoop.FileContext.getFileContext(target_path.toUri(), self._conf)
        context.rename(fs.makeQualified(source_path), target_path, self._overwrite)

    def remove_empty(self, folder: str) -> None:
        """Remove a folder if nothing is in it."""
        if not self._fs(folder).listStatus(self._path(folder)):
            self._fs(folder).delete(self._path(folder), False)

    def info(self, path: str) -> FileInfo:
        """What is known of a file."""
        status = self._fs(path).getFileStatus(self._path(path))
        return FileInfo(str(status.getPath()), status.getLen(), status.getModificationTime())

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing where it is not there."""
        self._fs(path).delete(self._path(path), True)
