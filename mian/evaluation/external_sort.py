"""Many rows in sorted order, few of them in memory."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[np.void]
Key = tuple[int, ...]


class SpillError(RuntimeError):
    """There is no room on the disk for rows that memory has none for."""


class SortedRows:
    """Records of whole numbers, sorted by their fields, the first one first.

    When memory holds as many as it may, they are sorted and written behind one another: a run. A range of rows then is a slice of each
    run. The file has no name, so that it is gone with the process, however that ends.

    Args:
        dtype: of the records, packed.
        capacity: how many are in memory at most.
        folder: where the others go.
    """

    def __init__(self, dtype: np.dtype[np.void], capacity: int, folder: Path) -> None:
        self.capacity = capacity
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._filling = np.empty(capacity, dtype)
        self._filled = 0
        self._runs: list[_Run | Records] = []
        self._cuts: list[list[int]] = []

    def add(self, rows: Records) -> None:
        """Take rows in, in any order.

        Raises:
            SpillError: the folder has no room for them.
        """
        while len(rows):
            taken = rows[: self.capacity - self._filled]
            self._filling[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == self.capacity:
                self._spill()

    def finish(self) -> int:
        """No row comes any more; how many runs there are."""
        self._runs.append(_sorted(self._filling[: self._filled], self._filling.dtype))
        self._filling = np.empty(0, self._filling.dtype)
        return len(self._runs)

    def samples(self, stride: int) -> Records:
        """The first row of each run, and of every ``stride`` rows of it one, ``(S,)``."""
        with self._disk("reads"):
            return np.concatenate([run[::stride] for run in self._runs])

    def cut(self, keys: Sequence[Key]) -> list[int]:
        """Cut the rows into parts, and see how many rows each has.

        Args:
            keys: rising; the first fields' values, or all, of the least row that may be in a part, for each part but the first.
        """
        with self._disk("reads"):
            self._cuts = [[0, *(bisect_left(run, key, key=_key) for key in keys), len(run)] for run in self._runs]
        return [sum(cuts[part + 1] - cuts[part] for cuts in self._cuts) for part in range(len(keys) + 1)]

    def part(self, number: int) -> Records:
        """The rows of a part, sorted, each once and with how often it is there in a field more, ``count``."""

        def pieces() -> Iterator[Records]:
            for run, cuts in zip(self._runs, self._cuts, strict=True):
                for start in range(cuts[number], cuts[number + 1], self.capacity):
                    yield _counted(run[start : min(start + self.capacity, cuts[number + 1])])

        with self._disk("reads"):
            return merge_counted(pieces(), self._filling.dtype)

    def close(self) -> None:
        """Remove the rows from memory and disk."""
        self._runs, self._cuts = [], []
        self._filling = np.empty(0, self._filling.dtype)
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        with self._disk("writes"):
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
            run = _Run(self._file.fileno(), self._file.tell(), self._filled, self._filling.dtype)
            left = _sorted(self._filling, self._filling.dtype).view(np.uint8)
            while len(left):  # a full disk takes a part, and then says so
                left = left[self._file.write(left.data) :]
        self._runs.append(run)
        self._filled = 0

    @contextmanager
    def _disk(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SpillError(
                f"{self._folder}: a split's scores, of which memory holds {self.capacity:,} rows, cannot be kept there ({error}, while "
                f"one {what}); make room, 16 bytes for each row that this rank scores, or let output be a folder that has it"
            ) from error


class _Run(Sequence[Any]):
    """Sorted records in a file, read where they are asked for."""

    def __init__(self, descriptor: int, start: int, length: int, dtype: np.dtype[np.void]) -> None:
        self._descriptor, self._start, self._length, self._dtype = descriptor, start, length, dtype

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            start, stop, step = place.indices(self._length)
            if step == 1:
                return self._read(start, stop)
            return np.concatenate([self._read(at, at + 1) for at in range(start, stop, step)])
        return self._read(place, place + 1)[0]

    def _read(self, start: int, stop: int) -> Records:
        size = self._dtype.itemsize
        read: Records = np.frombuffer(os.pread(self._descriptor, (stop - start) * size, self._start + start * size), self._dtype)
        return read


def merge_counted(parts: Iterable[Records], dtype: np.dtype[np.void]) -> Records:
    """Counted records of several parts as those of one, sorted, each once.

    Args:
        parts: as :meth:`SortedRows.part` gives them.
        dtype: of the records that were counted.
    """
    rows = _sorted(np.concatenate([np.empty(0, counted_dtype(dtype)), *parts]), dtype)
    starts = _starts(rows, dtype)
    if len(starts) == len(rows):
        return rows
    merged = _take(rows, starts)
    merged["count"] = np.add.reduceat(rows["count"], starts)
    return merged


def counted_dtype(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Of records with how often each is there."""
    return np.dtype([*dtype.descr, ("count", "<i8")])


def _counted(rows: Records) -> Records:
    starts = _starts(rows, rows.dtype)
    counted = np.empty(len(starts), counted_dtype(rows.dtype))
    for name in rows.dtype.names or ():
        counted[name] = rows[name][starts]
    counted["count"] = np.diff(np.append(starts, len(rows)))
    return counted


def _starts(rows: Records, dtype: np.dtype[np.void]) -> npt.NDArray[np.int64]:
    """Where another record begins among sorted ones."""
    new = np.zeros(len(rows), bool)
    new[:1] = True
    for name in dtype.names or ():
        new[1:] |= rows[name][1:] != rows[name][:-1]
    return np.flatnonzero(new)


def _sorted(rows: Records, dtype: np.dtype[np.void]) -> Records:
    """Records in the order of the fields of ``dtype``; themselves where they are in order."""
    names = dtype.names or ()
    less, equal = np.zeros(max(0, len(rows) - 1), bool), np.ones(max(0, len(rows) - 1), bool)
    for name in names:
        less |= equal & (rows[name][:-1] < rows[name][1:])
        equal &= rows[name][:-1] == rows[name][1:]
    if (less | equal).all():
        return rows
    order = np.argsort(rows[names[-1]], kind="stable")
    for name in names[-2::-1]:
        order = order[np.argsort(rows[name][order], kind="stable")]
    return _take(rows, order)


def _take(rows: Records, places: npt.NDArray[np.int64]) -> Records:
    """``rows[places]``, a field at a time, which is ten times as fast."""
    taken = np.empty(len(places), rows.dtype)
    for name in rows.dtype.names or ():
        taken[name] = rows[name][places]
    return taken


def _key(record: np.void) -> Key:
    key: Key = record.item()
    return key
