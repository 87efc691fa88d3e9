"""Files on any file system: local paths through Python, ``hdfs://``, ``s3a://`` and whatever else the cluster has through Hadoop."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipeline.io.files import FileInfo, Files, LocalFiles, is_hidden, temporary_name

#: Which file system a path is of: its scheme and authority.
_SYSTEM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?")


class HadoopFiles:
    """Files that Hadoop reaches.

    Args:
        spark: the session whose Hadoop configuration says how each kind of path is reached.
    """

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext
        self._jvm = context._jvm
        self._hadoop = self._jvm.org.apache.hadoop.fs
        rename = self._hadoop.Options.Rename
        self._overwrite, self._keep = (context._gateway.new_array(rename, 1) for _ in range(2))
        self._overwrite[0], self._keep[0] = rename.OVERWRITE, rename.NONE
        self._conf = context._jsc.hadoopConfiguration()
        # each step through a name or an object of the JVM is a message to it and back
        self._path = self._hadoop.Path
        self._systems: dict[str, tuple[Any, bool]] = {}

    def _system(self, path: str) -> tuple[Any, bool]:
        """A path's file system, and whether it is that of this machine."""
        found = _SYSTEM.match(path)
        name = found[0] if found is not None else ""
        if name not in self._systems:
            system = self._path(path).getFileSystem(self._conf)
            self._systems[name] = system, system.getUri().getScheme() == "file"
        return self._systems[name]

    def _fs(self, path: str) -> Any:
        return self._system(path)[0]

    def is_local(self, path: str) -> bool:
        """Whether a path is one of this machine."""
        return self._system(path)[1]

    def qualified(self, path: str) -> str:
        """The path with its scheme and, where it is relative, the working folder."""
        return str(self._fs(path).makeQualified(self._path(path)))

    def glob(self, pattern: str) -> list[str]:
        """The paths that a pattern matches."""
        found = self._fs(pattern).globStatus(self._path(pattern))
        return sorted(str(status.getPath()) for status in (found or []))

    def exists(self, path: str) -> bool:
        """See :class:`Files`."""
        return bool(self._fs(path).exists(self._path(path)))

    def children(self, folder: str) -> list[str]:
        """See :class:`Files`."""
        if not self.exists(folder):
            return []
        # much faster than asking for sizes too
        listed = self._hadoop.FileUtil.stat2Paths(self._fs(folder).listStatus(self._path(folder)))
        return sorted(str(path).rpartition("/")[2] for path in listed)

    def files(self, path: str) -> Iterator[FileInfo]:
        """See :class:`Files`."""
        root = self.qualified(path)
        walker = self._fs(path).listFiles(self._path(path), True)
        while walker.hasNext():
            status = walker.next()
            found = str(status.getPath())
            if not any(map(is_hidden, found.removeprefix(root).split("/"))):
                yield FileInfo(found, status.getLen(), status.getModificationTime())

    def info(self, path: str) -> FileInfo | None:
        """See :class:`Files`."""
        if not self.exists(path):
            return None
        status = self._fs(path).getFileStatus(self._path(path))
        return FileInfo(str(status.getPath()), status.getLen(), status.getModificationTime())

    def read_bytes(self, path: str) -> bytes:
        """See :class:`Files`."""
        with contextlib.closing(self._fs(path).open(self._path(path))) as stream:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))

    def sha256(self, path: str) -> str:
        """See :class:`Files`."""
        with contextlib.closing(self._fs(path).open(self._path(path))) as stream:
            return str(self._jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream))

    def write(self, path: str, content: bytes) -> None:
        """See :class:`Files`."""
        temporary = temporary_name(path)
        self._write(temporary, content)
        self.replace(temporary, path)

    def create(self, path: str, content: bytes) -> bool:
        """See :class:`Files`."""
        temporary = temporary_name(path)
        self._write(temporary, content)
        try:
            self._rename(temporary, path, self._keep)
        except Py4JJavaError as error:
            self.remove(temporary)
            if "FileAlreadyExistsException" in str(error.java_exception.getClass().getName()):
                return False
            raise
        return True

    def _write(self, path: str, content: bytes) -> None:
        with contextlib.closing(self._fs(path).create(self._path(path), True)) as stream:
            stream.write(bytearray(content))

    def _rename(self, source: str, target: str, options: Any) -> None:
        fs, source_path, target_path = self._fs(target), self._path(source), self._path(target)
        fs.mkdirs(target_path.getParent())
        target_path = fs.makeQualified(target_path)
        context = self._hadoop.FileContext.getFileContext(target_path.toUri(), self._conf)
        context.rename(fs.makeQualified(source_path), target_path, options)

    def replace(self, source: str, target: str) -> None:
        """See :class:`Files`."""
        self._rename(source, target, self._overwrite)

    def remove(self, path: str) -> None:
        """See :class:`Files`."""
        self._fs(path).delete(self._path(path), True)

    def remove_empty(self, folder: str) -> None:
        """See :class:`Files`."""
        if self.exists(folder) and not self._fs(folder).listStatus(self._path(folder)):
            self._fs(folder).delete(self._path(folder), False)


class Storage:
    """Local files and those that Hadoop reaches, by their paths.

    Python works on local files, which is faster than a message to the JVM a step, and is what makes their replacement atomic: Hadoop's
    local file system removes the target first.

    Args:
        spark: the session whose Hadoop configuration says how each kind of path is reached.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._local = LocalFiles()
        self._hadoop = HadoopFiles(spark)

    def _of(self, path: str) -> Files:
        return self._local if self._hadoop.is_local(path) else self._hadoop

    def qualified(self, path: str) -> str:
        """The path with its scheme and, where it is relative, the working folder."""
        return self._hadoop.qualified(path)

    def glob(self, pattern: str) -> list[str]:
        """The paths that a pattern matches; a path that is there is itself, whatever its characters mean in a pattern."""
        return [self.qualified(pattern)] if self.exists(pattern) else self._hadoop.glob(pattern)

    def exists(self, path: str) -> bool:
        """See :class:`Files`."""
        return self._of(path).exists(path)

    def children(self, folder: str) -> list[str]:
        """See :class:`Files`."""
        return self._of(folder).children(folder)

    def files(self, path: str) -> Iterator[FileInfo]:
        """See :class:`Files`."""
        return self._of(path).files(path)

    def info(self, path: str) -> FileInfo | None:
        """See :class:`Files`."""
        return self._of(path).info(path)

    def read_text(self, path: str) -> str:
        """The text of a small UTF-8 file."""
        return self.read_bytes(path).decode("utf-8")

    def read_bytes(self, path: str) -> bytes:
        """See :class:`Files`."""
        return self._of(path).read_bytes(path)

    def sha256(self, path: str) -> str:
        """See :class:`Files`."""
        return self._of(path).sha256(path)

    def write(self, path: str, content: bytes) -> None:
        """See :class:`Files`."""
        self._of(path).write(path, content)

    def create(self, path: str, content: bytes) -> bool:
        """See :class:`Files`."""
        return self._of(path).create(path, content)

    def replace(self, source: str, target: str) -> None:
        """See :class:`Files`."""
        self._of(target).replace(source, target)

    def remove(self, path: str) -> None:
        """See :class:`Files`."""
        self._of(path).remove(path)

    def remove_empty(self, folder: str) -> None:
        """See :class:`Files`."""
        self._of(folder).remove_empty(folder)
