"""The behaviors before each impression."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from mian.contract import History
from pipeline.arrays import BoolArray, IntArray
from pipeline.days import DAY_MICROSECONDS, HOUR_MICROSECONDS, Calendar
from pipeline.timelines import Timelines

#: Entries of the tables in which late arrivals are looked for, at a time.
CELLS = 4_000_000


@dataclass(frozen=True)
class Histories:
    """For each of N impressions its behaviors, the most recent first, one impression's after the other's.

    ``places``: rows of the table of behaviors, shape ``(sum of lengths,)``. ``lengths``: shape ``(N,)``.
    """

    places: IntArray
    lengths: IntArray

    @functools.cached_property
    def offsets(self) -> IntArray:
        """Where each impression's behaviors begin, and the end; shape ``(N + 1,)``."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    def take(self, rows: IntArray) -> Histories:
        """The histories of some impressions."""
        lengths = self.lengths[rows]
        return Histories(self.places[np.repeat(self.offsets[rows], lengths) + within(lengths)], lengths)

    def between(self, first: int, end: int) -> Histories:
        """The histories of the impressions from ``first`` to before ``end``."""
        return Histories(self.places[self.offsets[first] : self.offsets[end]], self.lengths[first:end])


def cutoffs(times: IntArray, history: History, calendar: Calendar) -> IntArray:
    """Up to when a history is known, for impressions at ``times`` (microseconds UTC)."""
    start = calendar.starts(calendar.numbers(times)) if history.cutoff == "previous_day" else times
    return start - round(history.lag_hours * HOUR_MICROSECONDS)


def find_histories(
    users: IntArray, times: IntArray, timelines: Timelines, visible: IntArray | None, history: History, calendar: Calendar
) -> Histories:
    """Find the behaviors of each impression: same user, ``cutoff - days <= time < cutoff``, visible before it, the last ``length``.

    Args:
        users: the impressions' users, shape ``(N,)``.
        times: the impressions' times, shape ``(N,)``, microseconds.
        timelines: of the behaviors by user.
        visible: from when on each behavior was known, shape ``(behaviors,)``; None where that is their time.
        history: length, days (of 24 hours) and cutoff.
        calendar: of the days that a cutoff can be at the beginning of.
    """
    cutoff = cutoffs(times, history, calendar)
    high = timelines.before(users, cutoff)
    low = timelines.before(users, cutoff - history.days * DAY_MICROSECONDS)
    if visible is None:
        lengths = np.minimum(high - low, history.length)
        return Histories(timelines.order[np.repeat(high, lengths) - 1 - within(lengths)], lengths)
    return _visible(low, high, cutoff, timelines, visible, history.length)


def listed_histories(lists: IntArray, entry_lists: IntArray, places: IntArray) -> Histories:
    """The histories that a log recorded: for each impression the entries of its list.

    Args:
        lists: the impressions' lists, shape ``(N,)``.
        entry_lists: the list of each entry, shape ``(behaviors,)``.
        places: of the entries within their lists, 0 for the most recent, shape ``(behaviors,)``.
    """
    numbers = np.unique(np.concatenate([lists, entry_lists]), return_inverse=True)[1].reshape(-1).astype(np.int64)
    entries = Timelines(numbers[len(lists) :], places)
    first = entries.start(numbers[: len(lists)])
    lengths = entries.start(numbers[: len(lists)] + 1) - first
    return Histories(entries.order[np.repeat(first, lengths) + within(lengths)], lengths)


def _visible(low: IntArray, high: IntArray, cutoff: IntArray, timelines: Timelines, visible: IntArray, length: int) -> Histories:
    """Walk back from ``high``, over what had not arrived yet, until ``length`` behaviors are found or ``low`` is reached."""
    seen = visible[timelines.order]
    parts: list[tuple[IntArray, IntArray, IntArray]] = []  # impressions, how many they have, and which
    pending = np.arange(len(low))
    width = 2 * length
    while len(pending):
        left = []
        for chunk in np.array_split(pending, -(-len(pending) * width // CELLS)):
            places = high[chunk, None] - 1 - np.arange(width)
            inside = places >= low[chunk, None]
            known = inside & (seen[np.where(inside, places, 0)] < cutoff[chunk, None]) if len(seen) else inside
            count = known.sum(axis=1)
            is_complete = (count >= length) | (high[chunk] - low[chunk] <= width)
            chosen: BoolArray = known & (np.cumsum(known, axis=1) <= length) & is_complete[:, None]
            parts.append((chunk[is_complete], np.minimum(count, length)[is_complete], timelines.order[places[chosen]]))
            left.append(chunk[~is_complete])
        pending = np.concatenate(left)
        width *= 4
    rows = np.concatenate([np.zeros(0, np.int64), *[part[0] for part in parts]])
    lengths = np.concatenate([np.zeros(0, np.int64), *[part[1] for part in parts]])
    found = Histories(np.concatenate([np.zeros(0, np.int64), *[part[2] for part in parts]]), lengths)
    return found.take(np.argsort(rows))


def within(lengths: IntArray) -> IntArray:
    """0, 1, 2 ... for each of some lists laid end to end, shape ``(sum of lengths,)``."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
