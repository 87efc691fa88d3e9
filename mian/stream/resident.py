"""Row groups that stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from petastorm.cache import CacheBase

from mian.stream.read_plan import Piece, RowGroup, WindowSlice
from mian.stream.schema import Arrays, Tensors
from mian.stream.windows import WindowRows, number_of_rows

Part = tuple[int, Arrays]
"""Some rows of a row group: where in it they begin, and their columns."""


def parts_of(piece: Piece, parts: Iterable[Part]) -> Iterator[Part]:
    """The rows of a piece among parts of its row group; where they begin is counted from the piece's first row."""
    for first, arrays in parts:
        start, stop = max(piece.start - first, 0), min(piece.stop - first, number_of_rows(arrays))
        if start < stop:
            yield first + start - piece.start, {name: array[start:stop] for name, array in arrays.items()}


class Resident(CacheBase):  # type: ignore[misc]  # petastorm has no types
    """A cache in Petastorm's protocol that holds some row groups, decoded, from when they were first read.

    Args:
        groups: those that are held; others pass through.
    """

    def __init__(self, groups: Iterable[RowGroup]) -> None:
        self._wanted = frozenset(groups)
        self._held: dict[RowGroup, list[Part]] = {}

    def get(self, key: RowGroup, fill_cache_func: Callable[[], Iterator[Part]]) -> Iterable[Part]:
        """A row group, read where it is not held."""
        if key not in self._wanted:
            return fill_cache_func()
        if key not in self._held:
            self._held[key] = list(fill_cache_func())
        return self._held[key]

    def cleanup(self) -> None:
        """Nothing: what is held stays for the next epoch."""

    def holds(self, reads: Iterable[WindowSlice]) -> bool:
        """Whether nothing of this need be read any more."""
        return all(piece.group in self._held for read in reads for piece in read.window.pieces)

    def windows(self, reads: Iterable[WindowSlice]) -> Iterator[Tensors]:
        """The rows of windows that are held, in order, each put together when it is asked for."""
        for read in reads:
            rows = WindowRows(read)
            for number, piece in enumerate(read.window.pieces):
                for first, arrays in parts_of(piece, self._held[piece.group]):
                    rows.put(number, first, arrays)
            yield rows.take()
