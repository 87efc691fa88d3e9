"""Negatives for logs that only know what was clicked or bought.

As the public Amazon benchmarks do: for each positive some items that the user did not choose. An item can be drawn where it had an
event in the seven days that end with the positive's day, and where the user has no event with it from the history's window before
the positive to the positive itself. Nothing later than the positive's day is used.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config import Negatives
from pipeline.days import Calendar, microseconds
from pipeline.hashing import uniform
from pipeline.join.blobs import ipc_bytes, ipc_table
from pipeline.join.timelines import codes

POOL_DAYS = 7
MAX_ATTEMPTS = 50

IntArray = npt.NDArray[np.int64]


def draw_negatives(
    positives: DataFrame, events: DataFrame, counts: Negatives, window: dt.timedelta, seed: int, calendar: Calendar
) -> DataFrame:
    """Add negatives to positives.

    Args:
        positives: columns ``impression_id``, ``user_id``, ``item_id``, ``time`` and any others.
        events: all events of the users from ``window`` before the first positive on, and of all items from six days before it on.
        counts: how many negatives of which kind for each positive.
        window: an item that the user had an event with in ``time - window`` to ``time``, both included, is not drawn.
        seed: of the draws; a positive's draws depend on its id and on nothing else.
        calendar: whose days are meant.

    Returns:
        The columns of ``positives`` and ``label``: the positives with 1, the negatives with 0. A negative has the id of its positive
        with ``#1``, ``#2`` ... behind it, and all its other columns but the item. Where the pool is too small for so many
        different items, there are fewer.
    """
    spark = positives.sparkSession
    daily = events.groupBy(F.expr(calendar.number_sql("time")).alias("day"), "item_id").count()
    pools = spark.sparkContext.broadcast(ipc_bytes(daily.orderBy("day", "item_id").toArrow()))
    columns = positives.columns
    marked = positives.withColumns(
        {"_micros": F.unix_micros("time"), "_hash": F.xxhash64("impression_id", F.lit(seed)), "_positive": F.lit(True)}
    )
    bought = events.select(
        *[F.col(c) if c in ("user_id", "item_id") else F.lit(None).cast(positives.schema[c].dataType).alias(c) for c in columns],
        F.unix_micros("time").alias("_micros"),
        F.lit(0).cast("long").alias("_hash"),
        F.lit(False).alias("_positive"),
    )
    schema = positives.withColumn("label", F.lit(1)).schema
    worker = _worker(lambda: _Pools(ipc_table(pools.value)), columns, counts, window, calendar)
    return marked.unionByName(bought).repartition("user_id").mapInArrow(worker, schema)


class _Pools:
    """For each day the items that can be drawn, as codes, and their events' running sum."""

    def __init__(self, daily: pa.Table) -> None:
        names = daily.column("item_id").combine_chunks()
        # in the order of names, so that a draw does not depend on which days are built together
        self.items = pa.compute.unique(names).sort()
        self._codes: IntArray = pa.compute.index_in(names, self.items).to_numpy().astype(np.int64)
        self._days: IntArray = daily.column("day").to_numpy().astype(np.int64)
        self._counts: IntArray = daily.column("count").to_numpy()

    def of(self, day: int) -> tuple[IntArray, IntArray]:
        """Item codes and the running sum of their events, for a day counted from 1970-01-01."""
        first, last = np.searchsorted(self._days, [day - POOL_DAYS + 1, day + 1])
        codes, place = np.unique(self._codes[first:last], return_inverse=True)
        events = np.bincount(place, weights=self._counts[first:last], minlength=len(codes)).astype(np.int64)
        return codes, np.cumsum(events)


class _Past:
    """Which items a user had an event with, and when."""

    def __init__(self, users: IntArray, items: IntArray, times: IntArray) -> None:
        self._pairs, pair = np.unique(np.stack([users, items]), axis=1, return_inverse=True)
        self._times = np.unique(times)
        self._span = len(self._times) + 1
        self._keys = np.sort(pair.reshape(-1) * self._span + np.searchsorted(self._times, times))
        self._pair_keys = self._pair_key(self._pairs[0], self._pairs[1])

    @staticmethod
    def _pair_key(users: IntArray, items: IntArray) -> IntArray:
        return users * (1 << 32) + items

    def has(self, users: IntArray, items: IntArray, first: IntArray, last: IntArray) -> npt.NDArray[np.bool_]:
        """Whether there is an event of that user and item from ``first`` to ``last``, both included; all of shape ``(N,)``."""
        wanted = self._pair_key(users, items)
        pair = np.minimum(np.searchsorted(self._pair_keys, wanted), len(self._pair_keys) - 1)
        low = np.searchsorted(self._keys, pair * self._span + np.searchsorted(self._times, first, "left"))
        high = np.searchsorted(self._keys, pair * self._span + np.searchsorted(self._times, last, "right"))
        found: npt.NDArray[np.bool_] = (self._pair_keys[pair] == wanted) & (high > low)
        return found


def _worker(
    pools_of: Callable[[], _Pools], columns: list[str], counts: Negatives, window: dt.timedelta, calendar: Calendar
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    width = microseconds(window)

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        arrived = list(batches)
        if not arrived:
            return
        table = pa.Table.from_batches(arrived).combine_chunks()
        pools = pools_of()
        is_positive = table.column("_positive").to_numpy(zero_copy_only=False).astype(bool)
        users: IntArray = codes(table.column("user_id"))[0]
        micros: IntArray = table.column("_micros").to_numpy()
        items: IntArray = pa.compute.index_in(table.column("item_id").combine_chunks(), pools.items).to_numpy().astype(np.int64)
        past = _Past(users[~is_positive], items[~is_positive], micros[~is_positive])
        places = np.flatnonzero(is_positive)
        if not len(places):
            return
        positives = table.filter(table.column("_positive"))
        days = calendar.numbers(micros[places])
        hashes = positives.column("_hash").to_numpy().astype(np.uint64)
        drawn = np.full((len(places), counts.uniform + counts.popularity), -1, np.int64)
        for day in np.unique(days):
            rows = np.flatnonzero(days == day)
            choices, running = pools.of(int(day))
            for slot in range(drawn.shape[1]):
                _fill_slot(
                    drawn,
                    rows,
                    slot,
                    slot >= counts.uniform,
                    choices,
                    running,
                    hashes,
                    past,
                    users[places],
                    micros[places],
                    width,
                )
        yield from _rows(positives, columns, drawn, pools).to_batches(max_chunksize=20_000)

    return draw


def _fill_slot(
    drawn: IntArray,
    rows: IntArray,
    slot: int,
    by_popularity: bool,
    codes: IntArray,
    running: IntArray,
    hashes: npt.NDArray[np.uint64],
    past: _Past,
    users: IntArray,
    micros: IntArray,
    width: int,
) -> None:
    """Draw the ``slot``-th negative of the positives ``rows``, again where the item is not allowed, :data:`MAX_ATTEMPTS` times."""
    for attempt in range(MAX_ATTEMPTS):
        if not len(rows):
            return
        chance = uniform(hashes[rows], slot * MAX_ATTEMPTS + attempt)
        if by_popularity:
            choice = np.searchsorted(running, (chance * running[-1]).astype(np.int64), "right")
        else:
            choice = (chance * len(codes)).astype(np.int64)
        item = codes[choice]
        known = past.has(users[rows], item, micros[rows] - width, micros[rows])
        again = (drawn[rows, :slot] == item[:, None]).any(axis=1)
        good = ~known & ~again
        drawn[rows[good], slot] = item[good]
        rows = rows[~good]


def _rows(positives: pa.Table, columns: list[str], drawn: IntArray, pools: _Pools) -> pa.Table:
    """Positives, then negatives, with their labels."""
    row, slot = np.nonzero(drawn >= 0)
    negatives = positives.select(columns).take(pa.array(row))
    ids = pa.compute.binary_join_element_wise(
        negatives.column("impression_id").combine_chunks(), pa.array((slot + 1).astype(str)), "#"
    )
    items = pools.items.take(pa.array(drawn[row, slot]))
    negatives = negatives.set_column(columns.index("impression_id"), "impression_id", ids)
    negatives = negatives.set_column(columns.index("item_id"), "item_id", items)
    both = [(positives.select(columns), 1), (negatives, 0)]
    return pa.concat_tables(
        table.append_column("label", pa.array(np.full(table.num_rows, label, np.int32))) for table, label in both
    )
