"""Events of many keys, each key's in order of time, and binary search in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.arrays import IntArray


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
