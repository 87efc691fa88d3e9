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
        ties: functions that order events of the same key and time, the most important first. Each takes the positions of K events,
            int64 ``(K,)``, and returns a number for each, int64 ``(K,)``; lower numbers come first. Each is called once at most, with
            the positions of those events alone that share their key and time with another one.

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
        """Find where the events of a key before a time end in sorted order.

        The events of a key from time ``a`` to before time ``b`` are ``order[before(key, a):before(key, b)]``. For a key without events
        both places are equal.

        Args:
            keys: The keys to look up, shape ``(M,)``, not negative.
            times: A time for each key, shape ``(M,)``, in the unit of the events' times.
            at: Whether events at exactly that time count as before it.

        Returns:
            int64 ``(M,)``, from 0 to N: the place in :attr:`order` behind the key's last event before the time.
        """
        rank = np.searchsorted(self._times, times, "right" if at else "left")
        return np.searchsorted(self._sorted, keys * self._span + rank).astype(np.int64)

    def start(self, keys: IntArray) -> IntArray:
        """Find where the events of a key begin in sorted order.

        Args:
            keys: The keys to look up, shape ``(M,)``, not negative.

        Returns:
            int64 ``(M,)``, from 0 to N: the place in :attr:`order` of the key's first event, or where it would be if there is none.
        """
        return np.searchsorted(self._sorted, keys * self._span).astype(np.int64)
