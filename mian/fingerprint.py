"""Fingerprints of source code and of files."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path

SUFFIXES = (".py", ".cpp", ".h")


@functools.cache
def package_fingerprint(package: str) -> str:
    """Fingerprint of an imported package.

    Args:
        package: Its full name, such as ``mian`` or ``pipeline.simulate``. It may lie in a zip file, as on a cluster.

    Returns:
        See :func:`source_fingerprint`.
    """
    return source_fingerprint([resources.files(package)])


def source_fingerprint(folders: Iterable[Traversable]) -> str:
    """SHA-256 over the names and contents of all source files below some folders, as 64 hexadecimal digits.

    Args:
        folders: Where to look, at any depth, for files that end in one of :data:`SUFFIXES`. A folder that does not exist has no files.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path, content in sorted(_source_files(folder, f"{folder.name}/")):
            digest.update(f"{path}\0".encode())
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _source_files(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            yield from _source_files(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(SUFFIXES):
            yield f"{path}{entry.name}", entry.read_bytes()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
