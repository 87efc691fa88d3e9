"""Are a file's bytes those that were written?"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Mapping

from mian.stream.errors import StreamError
from mian.stream.filesystem import Storage

_BLOCK = 1 << 20


class Checksums:
    """Compares files with their SHA-256 sums, each once, from any thread.

    Parquet pages have no checksum here: a byte that flips inside one is read as another number.

    Args:
        storage: where the files lie.
        sums: by path relative to it, in hexadecimal.
    """

    def __init__(self, storage: Storage, sums: Mapping[str, str]) -> None:
        self._storage = storage
        self._sums = sums
        self._whole: set[str] = set()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def check(self, path: str) -> None:
        """Check a file, where it was not yet.

        Raises:
            StreamError: it is another file than the one whose sum is known.
            OSError: it cannot be read.
        """
        with self._locks[path]:  # who needs the file's next row group waits too
            if path in self._whole:
                return
            digest = hashlib.sha256()
            with self._storage.filesystem.open(self._storage.path(path)) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            if digest.hexdigest() != self._sums[path]:
                raise StreamError(
                    f"the file's SHA-256 is {digest.hexdigest()}, the contract says {self._sums[path]}: it is damaged or was changed"
                )
            self._whole.add(path)
