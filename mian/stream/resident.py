"""Row groups that stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from petastorm.cache import CacheBase

from mian.stream.columns import Tensors
from mian.stream.plan import Read, RowGroup
from mian.stream.windows import WindowRows


class Resident(CacheBase):  # type: ignore[misc]  # petastorm has no types
    """A cache in Petastorm's protocol that holds some row groups, decoded, from when they were first read.

    Args:
        groups: those that are held; others pass through.
    """

    def __init__(self, groups: Iterable[RowGroup]) -> None:
        self._wanted = frozenset(groups)
        self._held: dict[RowGroup, Tensors] = {}

    def get(self, key: RowGroup, fill_cache_func: Callable[[], Tensors]) -> Tensors:
        """A row group, read where it is not held."""
        tensors = self._held.get(key)
        if tensors is None:
            tensors = fill_cache_func()
            if key in self._wanted:
                self._held[key] = tensors
        return tensors

    def cleanup(self) -> None:
        """Nothing: what is held stays for the next epoch."""

    def holds(self, reads: Iterable[Read]) -> bool:
        """Whether nothing of this need be read any more."""
        return all(group in self._held for read in reads for group in read.window.groups)

    def windows(self, reads: Iterable[Read]) -> Iterator[Tensors]:
        """The rows of windows that are held, in order, each put together when it is asked for."""
        for read in reads:
            rows = WindowRows(read)
            for number, group in enumerate(read.window.groups):
                rows.put(number, self._held[group])
            yield rows.take()
