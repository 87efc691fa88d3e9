"""Where the samples lie, resolved as Petastorm resolves it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from petastorm.fs_utils import get_filesystem_and_path_or_paths
from pyarrow.filesystem import DaskFileSystem

from mian.stream.errors import StreamError


class _FsspecFiles(DaskFileSystem):  # type: ignore[misc]  # pyarrow has no types
    """An fsspec filesystem in the form that Petastorm's use of pyarrow takes.

    pyarrow asks of each path whether it is a file. It is: a stream names nothing else, and its checks have opened each one. So
    the answer costs no request.
    """

    def isdir(self, path: str) -> bool:
        return False

    def isfile(self, path: str) -> bool:
        return True


@dataclass(frozen=True)
class Storage:
    """A folder of samples: a filesystem of pyarrow's older kind, which Petastorm needs, and the folder's path on it."""

    filesystem: Any
    root: str

    @classmethod
    def at(cls, samples: str) -> Storage:
        """The storage of a local path or a URL (``file://``, ``hdfs://``, ``s3://`` or whatever else fsspec opens).

        Raises:
            StreamError: the URL is of a kind that cannot be opened here.
        """
        is_url = "://" in samples
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # on pyarrow's older filesystems
            try:
                filesystem, path = get_filesystem_and_path_or_paths(samples if is_url else "file:///", hdfs_driver="libhdfs")
            except (ImportError, ValueError, OSError) as error:
                raise StreamError(
                    f"{samples}: cannot open samples there ({error}); give a path, or a URL that fsspec opens"
                ) from error
            if isinstance(filesystem, fsspec.AbstractFileSystem):
                filesystem = _FsspecFiles(filesystem)
        # A local path is taken as it is: a URL would have "#" and "?" in it mean something else.
        return cls(filesystem, path.rstrip("/") if is_url else str(Path(samples).absolute()))

    def path(self, relative: str) -> str:
        """The path on the filesystem of a file that the contract names."""
        return f"{self.root}/{relative}"
