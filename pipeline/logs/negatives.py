"""Negatives for logs that only know what was clicked or bought.

As the public Amazon benchmarks do: for each positive some items that the user did not choose. An item can be drawn where it is in the
pool at the positive's time (see :mod:`pipeline.logs.item_pool`), and where the user has no event with it from the history's window before
the positive to the positive itself. Nothing at or after the positive's time makes an item one that can be drawn.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.arrays import IntArray, codes, firsts, pairs
from pipeline.config import Negatives
from pipeline.days import Calendar, microseconds
from pipeline.hashing import impression_hash, uniform
from pipeline.logs.item_pool import ItemPool, pack_pool

MAX_ATTEMPTS = 50
#: How many attempts are drawn at a time: most end with the first few.
ROUNDS = (0, 4, 16, MAX_ATTEMPTS)
WALKED = 1_000
#: Positives that walk at a time.
CHUNK = 2_000


def draw_negatives(
    positives: DataFrame,
    events: DataFrame,
    known: DataFrame | None,
    settings: Negatives,
    start: int,
    window: dt.timedelta,
    seed: int,
    calendar: Calendar,
) -> DataFrame:
    """Add negatives to positives.

    Args:
        positives: columns ``impression_id``, ``user_id``, ``item_id``, ``time`` and any others.
        events: the events of the users from ``window`` before the first positive on, and the events of all items from
            ``settings.window_hours`` before the first positive on.
        known: from when to when the table ``items`` knows each item, see :func:`pipeline.logs.attributes.known_spans`; None if the
            table does not say that.
        settings: how many negatives of which kind are drawn for each positive, and how long an item counts as alive.
        start: when the first day of the positives begins, microseconds since 1970.
        window: an item is not drawn if the user had an event with it from ``time - window`` to ``time``, both included.
        seed: the seed of the draws. The random numbers of a positive depend on the seed and on its user, id and day alone.
        calendar: divides time into days; within a day an id belongs to one impression.

    Returns:
        The columns of ``positives`` and ``label``: 1 for the positives, 0 for the negatives. A negative is a copy of its positive with
        another item and another id: that of the positive with ``#1``, ``#2`` ... behind it (a later number if the log has that id).
        If no item could be drawn, the item is null; such a negative becomes no sample, but is counted. If a positive was delivered
        twice, only the first delivery has negatives.
    """
    spark = positives.sparkSession
    alive = microseconds(settings.window)
    packed = spark.sparkContext.broadcast(pack_pool(events, known, start, alive))
    columns = positives.columns
    marked = positives.withColumns(
        {
            "_micros": F.unix_micros("time"),
            "_day": F.expr(calendar.number_sql("time")),
            "_hash": impression_hash(calendar, seed),
            "_positive": F.lit(True),
        }
    )
    bought = events.select(
        *[F.col(c) if c in ("user_id", "item_id") else F.lit(None).cast(positives.schema[c].dataType).alias(c) for c in columns],
        F.unix_micros("time").alias("_micros"),
        F.lit(0).alias("_day"),
        F.lit(0).cast("long").alias("_hash"),
        F.lit(False).alias("_positive"),
    )
    schema = positives.withColumn("label", F.lit(1)).schema
    worker = _worker(lambda: ItemPool(packed.value, alive), columns, settings, window)
    return marked.unionByName(bought).repartition("user_id").mapInArrow(worker, schema)


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
        if not len(self._pair_keys):
            return np.zeros(len(users), np.bool_)
        wanted = self._pair_key(users, items)
        pair = np.minimum(np.searchsorted(self._pair_keys, wanted), len(self._pair_keys) - 1)
        low = np.searchsorted(self._keys, pair * self._span + np.searchsorted(self._times, first, "left"))
        high = np.searchsorted(self._keys, pair * self._span + np.searchsorted(self._times, last, "right"))
        found: npt.NDArray[np.bool_] = (self._pair_keys[pair] == wanted) & (high > low)
        return found


def _worker(
    make_pool: Callable[[], ItemPool], columns: list[str], settings: Negatives, window: dt.timedelta
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    width = microseconds(window)

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        arrived = list(batches)
        if not arrived:
            return
        table = pa.Table.from_batches(arrived).combine_chunks()
        is_positive = table.column("_positive").to_numpy(zero_copy_only=False).astype(bool)
        if not is_positive.any():
            return
        pool = make_pool()
        users: IntArray = codes(table.column("user_id"))[0]
        micros: IntArray = table.column("_micros").to_numpy()
        numbers = pa.compute.index_in(table.column("item_id").combine_chunks(), pool.names).fill_null(-1)
        items: IntArray = numbers.to_numpy().astype(np.int64)
        bought = ~is_positive & (items >= 0)  # what is in no pool is not drawn anyway
        past = _Past(users[bought], items[bought], micros[bought])
        positives = table.filter(table.column("_positive"))
        buyers = users[is_positive]
        first = _first_deliveries(positives, buyers)
        hashes = positives.column("_hash").to_numpy().astype(np.uint64)
        draws = _Draws(pool, past, settings, width, buyers[first], micros[is_positive][first], hashes[first])
        yield from _rows(positives, buyers, first, columns, draws.items(), pool.names).to_batches(max_chunksize=20_000)

    return draw


class _Draws:
    """The draws of some positives.

    Args:
        pool: what can be drawn.
        past: what the users had.
        settings: how many of which kind.
        width: how far back what a user had counts, microseconds.
        users: of the positives, shape ``(N,)``; so are ``times`` and ``hashes``.
    """

    def __init__(
        self,
        pool: ItemPool,
        past: _Past,
        settings: Negatives,
        width: int,
        users: IntArray,
        times: IntArray,
        hashes: npt.NDArray[np.uint64],
    ) -> None:
        self._pool, self._past, self._settings, self._width = pool, past, settings, width
        self._users, self._times, self._hashes = users, times, hashes

    def items(self) -> IntArray:
        """The drawn items' codes, shape ``(N, negatives)``; -1 where none was found.

        Where :data:`MAX_ATTEMPTS` draws find no item that is allowed, :data:`WALKED` items are looked at in turn: in a small pool a
        negative is missing only where there is none.
        """
        drawn = np.full((len(self._users), self._settings.uniform + self._settings.popularity), -1, np.int64)
        for slot in range(drawn.shape[1]):
            draw = self._pool.popular if slot >= self._settings.uniform else self._pool.uniform
            rows = np.arange(len(drawn))
            for begin, end in itertools.pairwise(ROUNDS):
                attempts = [slot * MAX_ATTEMPTS + attempt for attempt in range(begin, end)]
                chances = np.stack([uniform(self._hashes[rows], attempt) for attempt in attempts], axis=1)
                rows = self._filled(drawn, slot, rows, draw(chances, self._times[rows]))
            for chunk in np.array_split(rows, max(1, len(rows) // CHUNK)):
                chances = uniform(self._hashes[chunk], slot * MAX_ATTEMPTS)
                self._filled(drawn, slot, chunk, self._pool.walk(chances, self._times[chunk], WALKED))
        return drawn

    def _filled(self, drawn: IntArray, slot: int, rows: IntArray, candidates: IntArray) -> IntArray:
        """Set ``drawn[rows, slot]`` to the first candidate that is allowed; return the rows that have none."""
        places = np.arange(len(rows))
        for items in candidates.T:
            left, item = rows[places], items[places]
            users, times = self._users[left], self._times[left]
            good = self._pool.has(item, times) & ~self._past.has(users, item, times - self._width, times)
            good &= ~(drawn[left, :slot] == item[:, None]).any(axis=1)
            drawn[left[good], slot] = item[good]
            places = places[~good]
        unfilled: IntArray = rows[places]
        return unfilled


def _first_deliveries(positives: pa.Table, users: IntArray) -> IntArray:
    """Of the positives of one user, id and day the first in time, then the least: their places."""
    days = positives.column("_day").to_numpy().astype(np.int64)
    keys = pairs(pairs(users, codes(positives.column("impression_id"))[0]), days)
    if len(np.unique(keys)) == len(keys):
        return np.arange(len(keys))
    names = [field.name for field in positives.schema if not pa.types.is_nested(field.type)]
    order = pa.compute.sort_indices(
        positives, sort_keys=[(c, "ascending") for c in dict.fromkeys(["_micros", "item_id", *names])]
    )
    rank = np.empty(len(keys), np.int64)
    rank[order.to_numpy().astype(np.int64)] = np.arange(len(keys))
    return np.flatnonzero(firsts(keys, rank))


def _rows(
    positives: pa.Table, users: IntArray, first: IntArray, columns: list[str], drawn: IntArray, names: pa.Array
) -> pa.Table:
    """Positives, then the negatives of the ``first`` ones, with their labels; the item of one that could not be drawn is null."""
    row, slot = (place.reshape(-1) for place in np.indices(drawn.shape))
    row = first[row]
    negatives = positives.select(columns).take(pa.array(row))
    ids = _negative_ids(positives, users, row, slot, drawn.shape[1])
    items = drawn.reshape(-1)
    negatives = negatives.set_column(columns.index("impression_id"), "impression_id", ids)
    negatives = negatives.set_column(columns.index("item_id"), "item_id", names.take(pa.array(items, mask=items < 0)))
    both = [(positives.select(columns), 1), (negatives, 0)]
    return pa.concat_tables(
        table.append_column("label", pa.array(np.full(table.num_rows, label, np.int32))) for table, label in both
    )


def _negative_ids(positives: pa.Table, users: IntArray, row: IntArray, slot: IntArray, width: int) -> pa.Array:
    """The ids of the negatives of some rows: the positive's with the number of the draw behind it, or the next free one of its kind."""
    ids = positives.column("impression_id").combine_chunks()
    made = pa.compute.binary_join_element_wise(ids.take(pa.array(row)), pa.array((slot + 1).astype(str)), "#")
    similar = pa.compute.is_in(made, ids).to_numpy(zero_copy_only=False)
    if not similar.any():
        return made
    days = positives.column("_day").to_numpy()
    taken = set(zip(users.tolist(), days.tolist(), ids.to_pylist(), strict=True))
    texts = made.to_pylist()
    for n in np.flatnonzero(similar).tolist():
        place, number = row[n], slot[n] + 1
        while (users[place], days[place], texts[n]) in taken:
            number += width
            texts[n] = f"{ids[place].as_py()}#{number}"
    return pa.array(texts, pa.string())
