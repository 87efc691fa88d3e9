"""Events of many keys, each key's in order of time, and binary search in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Timelines:
    """Events sorted by key, time and ties.

    Args:
        keys: shape ``(N,)``, not negative.
        times: shape ``(N,)``, any unit.
        ties: what orders events of one key and time, the most important first: each gives numbers for some of the events, and is
            asked for those alone that have a key and a time in common.

    Attributes:
        order: the positions of the events in sorted order, shape ``(N,)``.
    """

    def __init__(self, keys: IntArray, times: IntArray, *ties: Callable[[IntArray], IntArray]) -> None:
        # key and time in one number: times become ranks, so that it cannot overflow
        self._times = np.unique(times)
        self._span = len(self._times) + 1
        moments = keys * self._span + np.searchsorted(self._times, times)
        self.order: IntArray = np.argsort(moments, kind="stable").astype(np.int64)
        self._sorted = moments[self.order]
        again = self._sorted[1:] == self._sorted[:-1]
        if ties and again.any():
            places = np.flatnonzero(np.append(again, False) | np.insert(again, 0, False))
            tied = self.order[places]
            by = [tie(tied) for tie in reversed(ties)]
            self.order[places] = tied[np.lexsort((*by, self._sorted[places]))]

    def before(self, keys: IntArray, times: IntArray, *, at: bool = False) -> IntArray:
        """For each key and time the place in sorted order behind its key's events before that time (or up to it, with ``at``).

        Events of the key from one time to another are those between two such places; for a key that has none they are equal.
        """
        rank = np.searchsorted(self._times, times, "right" if at else "left")
        return np.searchsorted(self._sorted, keys * self._span + rank).astype(np.int64)

    def start(self, keys: IntArray) -> IntArray:
        """For each key the place of its first event."""
        return np.searchsorted(self._sorted, keys * self._span).astype(np.int64)


def codes(values: pa.ChunkedArray | pa.Array) -> tuple[IntArray, pa.Array]:
    """Numbers for values, equal for equal ones, -1 for null; and the value of each number."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = array.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary


def ranks(numbers: IntArray, values: pa.Array) -> IntArray:
    """The numbers of :func:`codes` replaced so that they are in the order of their values; null first."""
    used, place = np.unique(numbers, return_inverse=True)
    known = used[used >= 0]
    order = pc.sort_indices(values.take(pa.array(known))).to_numpy()
    rank = np.full(len(used), -1, np.int64)
    rank[len(used) - len(known) + order.astype(np.int64)] = np.arange(len(known))
    ranked: IntArray = rank[place.reshape(-1)]
    return ranked


def pairs(first: IntArray, second: IntArray) -> IntArray:
    """One number for each pair of numbers of :func:`codes`, equal for equal pairs, not negative."""
    return (first + 1) * (int(second.max(initial=0)) + 2) + second + 1


def firsts(keys: IntArray, *order: IntArray) -> BoolArray:
    """Of the rows of each key the one that comes first in an order, the most important part of it first; shape ``(N,)``."""
    if len(np.unique(keys)) == len(keys):
        return np.ones(len(keys), np.bool_)
    places = np.lexsort((*reversed(order), keys))
    sorted_keys = keys[places]
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    kept = np.zeros(len(keys), np.bool_)
    kept[places[is_first]] = True
    return kept
