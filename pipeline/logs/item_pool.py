"""The items that can be drawn as negatives at any moment, held by item and hour.

An item is in the pool at time t where it had an event in ``t - window <= time < t`` and was on sale at t. An item is off sale where
the table ``items`` knew it when it was last seen and does not know it at t. So an item that ended is no negative, and one that the
table never knew, or learns of too late, is as unknown among the negatives as it is among the positives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.arrays import BoolArray, IntArray
from pipeline.days import HOUR_MICROSECONDS
from pipeline.io.arrow_ipc import ipc_bytes, ipc_table
from pipeline.timelines import Timelines

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PackedPool:
    """What workers make an :class:`ItemPool` of; each a table of :func:`pipeline.io.arrow_ipc.ipc_bytes`.

    ``names``: the items, in order. ``hours``, in the order of hours and items: ``item`` (its place in ``names``), ``hour`` (since
    ``origin``, microseconds), ``count`` of events, ``first`` and ``last`` (microseconds). ``known``: ``item``, ``begin``, ``end`` as
    in :func:`pipeline.logs.attributes.known_spans`; None where ``items`` does not say when.
    """

    names: bytes
    hours: bytes
    known: bytes | None
    origin: int


def pack_pool(events: DataFrame, known: DataFrame | None, start: int, window: int) -> PackedPool:
    """Collect the pool for the positives of some days.

    Args:
        events: columns ``item_id`` and ``time``; all events from the hour of ``start - window`` to the end of the last day.
        known: the spans of ``items``; None where it has no times.
        start: when the first day begins, microseconds since 1970.
        window: how long after an event an item is in the pool, microseconds.
    """
    # hours as days have them, and whole ones, so that what is known of an hour does not depend on which days are built together
    origin = start % HOUR_MICROSECONDS
    hour = F.expr(f"(_micros - {origin}) DIV {HOUR_MICROSECONDS}")
    begin = (start - window - origin) // HOUR_MICROSECONDS
    events = events.select("item_id", F.unix_micros("time").alias("_micros")).where(hour >= begin)
    hourly = events.groupBy("item_id", hour.alias("hour")).agg(
        F.count("*").alias("count"), F.min("_micros").alias("first"), F.max("_micros").alias("last")
    )
    table = hourly.toArrow()
    names = pa.compute.unique(table.column("item_id")).sort()
    table = _numbered(table, names).sort_by([("hour", "ascending"), ("item", "ascending")])
    spans = None
    if known is not None:
        seen = events.select("item_id").distinct()
        spans = ipc_bytes(_numbered(known.join(seen, "item_id", "left_semi").toArrow(), names))
    return PackedPool(ipc_bytes(pa.table({"name": names})), ipc_bytes(table), spans, origin)


def _numbered(table: pa.Table, names: pa.Array) -> pa.Table:
    items = pa.compute.index_in(table.column("item_id").combine_chunks(), names)
    return table.drop_columns(["item_id"]).append_column("item", items)


class ItemPool:
    """The pool at any moment.

    Args:
        packed: the events by item and hour.
        window: microseconds, at least an hour.

    Attributes:
        names: the items; their places here are the items' codes.
    """

    def __init__(self, packed: PackedPool, window: int) -> None:
        self.names: pa.Array = ipc_table(packed.names).column("name").combine_chunks()
        table = ipc_table(packed.hours)
        self._window = window
        self._origin = packed.origin
        self._items, self._hours, self._counts, self._first, self._last = (
            _integers(table, name) for name in ("item", "hour", "count", "first", "last")
        )
        self._running = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._counts)])
        self._by_item = Timelines(self._items, self._first)
        self._known = None
        if packed.known is not None:
            spans = ipc_table(packed.known)
            self._known = Timelines(_integers(spans, "item"), _integers(spans, "begin")), _integers(spans, "end")

    def uniform(self, chances: FloatArray, times: IntArray) -> IntArray:
        """Items that had an event in the hours of the window, each with the same chance; :meth:`has` says which are in the pool.

        Args:
            chances: in [0, 1), shape ``(N, A)``.
            times: microseconds, shape ``(N,)``.

        Returns:
            Codes of items, shape ``(N, A)``; -1 where there is none.
        """
        drawn = np.full(chances.shape, -1, np.int64)
        for rows, items in self._by_hour(self._hour(times)):
            if len(items):
                drawn[rows] = items[(chances[rows] * len(items)).astype(np.int64)]
        return drawn

    def walk(self, chances: FloatArray, times: IntArray, most: int) -> IntArray:
        """The first items of :meth:`uniform`'s, one after the other from one that chance says on.

        Args:
            chances: in [0, 1), shape ``(N,)``.
            times: microseconds, shape ``(N,)``.
            most: how many items.

        Returns:
            Codes of items, shape ``(N, most or fewer)``; -1 behind the last.
        """
        found = np.full((len(times), most), -1, np.int64)
        longest = 0
        for rows, items in self._by_hour(self._hour(times)):
            if len(items):
                steps = np.arange(min(len(items), most))
                start = (chances[rows] * len(items)).astype(np.int64)
                found[rows, : len(steps)] = items[(start[:, None] + steps) % len(items)]
                longest = max(longest, len(steps))
        return found[:, :longest]

    def popular(self, chances: FloatArray, times: IntArray) -> IntArray:
        """As :meth:`uniform`, each item with a chance in proportion to its events in the window.

        Of an hour that the window cuts, an item's events count all where all are inside, and as one where some are.
        """
        low = self._running[np.searchsorted(self._hours, self._hour(times - self._window))][:, None]
        high = self._running[np.searchsorted(self._hours, self._hour(times) + 1)][:, None]
        if not len(self._items):
            return np.full(chances.shape, -1, np.int64)
        event = low + (chances * (high - low)).astype(np.int64)
        row = np.minimum(np.searchsorted(self._running, event, "right") - 1, len(self._items) - 1)
        begin, end = (times - self._window)[:, None], times[:, None]
        whole = (self._first[row] >= begin) & (self._last[row] < end)
        some = (self._last[row] >= begin) & (self._first[row] < end)
        counts = (high > low) & some & (whole | (event == self._running[row]))
        return np.where(counts, self._items[row], -1)

    def has(self, items: IntArray, times: IntArray) -> BoolArray:
        """Whether items are in the pool; both of shape ``(N,)``, no item is -1."""
        place = self._by_item.before(items, times) - 1
        row = self._by_item.order[np.maximum(place, 0)] if len(self._items) else np.zeros(len(items), np.int64)
        seen = place >= self._by_item.start(items)
        if not seen.any():
            return seen
        alive: BoolArray = seen & (self._last[row] >= times - self._window)
        if self._known is None:
            return alive
        return alive & (self._knows(items, times) | ~self._knows(items, self._first[row]))

    def _knows(self, items: IntArray, times: IntArray) -> BoolArray:
        assert self._known is not None
        spans, ends = self._known
        place = spans.before(items, times) - 1
        begun = place >= spans.start(items)
        if not begun.any():
            return begun
        known: BoolArray = begun & (times <= ends[spans.order[np.maximum(place, 0)]])
        return known

    def _hour(self, times: IntArray) -> IntArray:
        return (times - self._origin) // HOUR_MICROSECONDS

    def _by_hour(self, hours: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
        """For each hour the rows of ``hours`` that are in it, and the items with an event from its window's first hour to itself."""
        order = np.argsort(hours, kind="stable")
        events = np.zeros(len(self.names), np.int64)
        low = high = 0
        for rows in np.split(order, np.flatnonzero(np.diff(hours[order])) + 1):
            if not len(rows):
                continue
            hour = int(hours[rows[0]])
            begin = hour - -(-self._window // HOUR_MICROSECONDS)
            next_low, next_high = np.searchsorted(self._hours, [begin, hour + 1]).tolist()
            if next_low >= high:
                events[:] = 0
                low = high = next_low
            np.add.at(events, self._items[high:next_high], 1)
            np.subtract.at(events, self._items[low:next_low], 1)
            low, high = next_low, next_high
            yield rows, np.flatnonzero(events)


def _integers(table: pa.Table, name: str) -> IntArray:
    numbers: IntArray = table.column(name).to_numpy().astype(np.int64)
    return numbers
