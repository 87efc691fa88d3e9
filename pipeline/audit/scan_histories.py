"""All behaviors of all samples: is each explained by something that its user did before the sample's cutoff?

Behaviors are compared as tuples of encoded values, so that what the samples hold is all that is needed: of each tuple a sample may hold
as many as the user has events of that tuple in the history's window. A behavior from the future is one that nothing explains.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mian.contract import Contract, Encoder
from pipeline.audit.compare import moment
from pipeline.audit.findings import SHOWN, Finding
from pipeline.audit.known import first_delivery, with_known
from pipeline.audit.published_samples import Published
from pipeline.audit.raw_fields import ITEM_KNOWN, Member, Members
from pipeline.audit.recompute import cutoff
from pipeline.audit.tables import DAY_MICROS, MICROS, ONCE, USER_KEY, Tables
from pipeline.config import DataConfig, HistoryConfig

#: Samples that a Python worker looks at in one go.
ROWS_PER_GROUP = 50_000

_FOUND = "kind string, number long, day string, impression_id string, column string, samples string, logs string"
#: Not findings: how much was looked at.
CHECKED = "checked"

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Plan:
    columns: tuple[str, ...]
    history: HistoryConfig
    zone: str


def scan_histories(published: Published, tables: Tables, config: DataConfig, fields: Members) -> Iterator[Finding]:
    """Look at all behaviors of the days that were built with the newest vocabularies.

    Returns:
        Findings; those of kind :data:`CHECKED` say how many behaviors (``count``) were looked at.
    """
    if not fields.behaviors:
        return
    contract = published.contract
    current = [str(day.day) for day in contract.days if day.vocabulary_version == contract.vocabulary_version]
    members = fields.behavior_values
    length = contract.history.length
    right_size = F.lit(True)
    for member in fields.behaviors:
        right_size = right_size & (F.size(member.column) == length)
    groups = max(1, sum(day.rows for day in contract.days) // ROWS_PER_GROUP)
    samples = published.samples.where(F.col("day").cast("string").isin(current) & right_size).select(
        F.pmod("user_key", F.lit(groups)).alias("_group"),
        F.col("user_key").alias("user"),
        "time",
        F.col("day").cast("string").alias("day"),
        "impression_id",
        "behavior_length",
        *[member.column for member in members],
    )
    events = _encoded_events(published, tables, config, members).withColumn("_group", F.pmod("user", F.lit(groups)))
    plan = _Plan(tuple(member.column for member in members), config.history, config.day_time_zone)
    together = samples.groupBy("_group").cogroup(events.groupBy("_group"))
    for row in together.applyInArrow(_worker(plan), _FOUND).collect():
        words = row["samples"]
        if words.startswith("{"):
            held = json.loads(words)
            words = ", ".join(f"{m.name} {published.words(m.contract, held[m.column])}" for m in members)
        yield Finding(row["kind"], words, row["logs"], row["day"], row["impression_id"], row["column"], row["number"])


def behavior_events(tables: Tables, config: DataConfig, members: Iterable[Member]) -> DataFrame:
    """Every behavior once: ``user``, ``time``, ``seen`` and the raw values of fields."""
    members = tuple(members)
    behaviors = tables.behaviors
    if tables.items is not None and config.items is not None:
        behaviors = with_known(behaviors, tables.items, config.items, "item_id", config.items.attributes, ITEM_KNOWN)
    values = [member.value(behaviors).alias(f"_value_{member.column}") for member in members]
    keys = [USER_KEY, "item_id", "impression_id", "action", ONCE]
    rows = behaviors.select(*keys, MICROS, "_seen", *values)
    first = first_delivery(rows, keys, [MICROS, "_seen", *[f"_value_{member.column}" for member in members]])
    return first.select(
        F.col(USER_KEY).alias("user"),
        F.col(MICROS).alias("time"),
        F.col("_seen").alias("seen"),
        *[F.col(f"_value_{member.column}").alias(member.column) for member in members],
    )


def _encoded_events(published: Published, tables: Tables, config: DataConfig, members: tuple[Member, ...]) -> DataFrame:
    raw = behavior_events(tables, config, members)
    shared = raw.sparkSession.sparkContext.broadcast(published.values)
    contract = published.contract.model_copy(update={"days": (), "reference": {}})
    kinds = "".join(f", `{m.column}` {'int' if m.contract.is_categorical else 'float'}" for m in members)
    return raw.mapInArrow(_encode(contract, members, lambda: shared.value), f"user long, time long, seen long{kinds}")


def _encode(
    contract: Contract, members: tuple[Member, ...], values: Callable[[], dict[str, pa.Array]]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = Encoder(contract.vocabularies, values())
        for batch in batches:
            columns = {name: batch.column(name) for name in ("user", "time", "seen")}
            encoded = {m.column: pa.array(encoder.encode(m.contract, batch.column(m.column))) for m in members}
            yield pa.RecordBatch.from_pydict(columns | encoded)

    return work


def _worker(plan: _Plan) -> Callable[[pa.Table, pa.Table], pa.Table]:
    def work(samples: pa.Table, events: pa.Table) -> pa.Table:
        rows = list(_Group(plan, samples, events).findings())
        names = [part.split()[0] for part in _FOUND.split(", ")]
        kinds = [pa.int64() if name == "number" else pa.string() for name in names]
        return pa.table(
            {name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))}
        )

    return work


class _Group:
    """The samples and the events of some users."""

    def __init__(self, plan: _Plan, samples: pa.Table, events: pa.Table) -> None:
        self._plan = plan
        self._samples = samples
        self._length = 0
        self._lists: list[npt.NDArray[Any]] = []  # of shape (samples, T)
        for column in plan.columns:
            flat = samples[column].combine_chunks().flatten().to_numpy()
            self._lists.append(flat.reshape(samples.num_rows, -1) if samples.num_rows else flat.reshape(0, 0))
        self._real = _integers(samples, "behavior_length")
        self._users, self._times = _integers(samples, "user"), _integers(samples, "time")
        self._cutoffs = np.array([cutoff(time, plan.history, plan.zone) for time in self._times.tolist()], np.int64)
        self._begins = self._cutoffs - plan.history.days * DAY_MICROS
        seen, time = _integers(events, "seen"), _integers(events, "time")
        # what came later than the window is long is never known in time; of all others those from before a window are known by its end
        usable = seen - time < plan.history.days * DAY_MICROS
        self._time, self._seen, self._user = time[usable], seen[usable], _integers(events, "user")[usable]
        self._values = [events[column].combine_chunks().to_numpy()[usable] for column in plan.columns]

    def findings(self) -> Iterator[tuple[Any, ...]]:
        """What is wrong with the histories of this user, as rows of :data:`_FOUND`."""
        if not len(self._users):
            return
        yield CHECKED, int(self._real.sum()), "", "", "", "", ""
        yield from self._lengths()
        if self._lists:
            yield from self._padding()
            yield from self._behaviors()

    def _lengths(self) -> Iterator[tuple[Any, ...]]:
        """Histories that are longer or shorter than what the user did."""
        user = np.searchsorted(np.unique(self._user), self._user) if len(self._user) else self._user
        key_places = _places(np.unique(self._user), self._users)
        wanted = np.minimum(
            _available(user, self._seen, self._time, key_places, self._cutoffs, self._begins), self._plan.history.length
        )
        wrong = np.flatnonzero(wanted != self._real)
        for row in wrong[:SHOWN].tolist():
            yield "history", 1, *self._sample(row), "behavior_length", str(self._real[row]), f"{wanted[row]} events in the window"
        yield from self._rest("history", wrong)

    def _padding(self) -> Iterator[tuple[Any, ...]]:
        width = self._lists[0].shape[1]
        behind = np.arange(width) >= self._real[:, None]
        for column, lists in zip(self._plan.columns, self._lists, strict=True):
            wrong = np.flatnonzero((behind & (lists != 0)).any(axis=1))
            for row in wrong[:SHOWN].tolist():
                yield "history", 1, *self._sample(row), column, "values behind its behaviors", "padding there"
            yield from self._rest("history", wrong)

    def _behaviors(self) -> Iterator[tuple[Any, ...]]:
        """Behaviors that nothing explains."""
        width = self._lists[0].shape[1]
        real = np.arange(width) < self._real[:, None]
        row, place = np.nonzero(real)
        codes = _codes(self._users[row], [lists[real] for lists in self._lists])
        known, event = np.unique(_codes(self._user, self._values), return_inverse=True)
        code = _places(known, codes)
        # one for each sample and tuple: how many there are, how many the window explains
        _, first, needed = np.unique(row * (len(known) + 1) + code, return_index=True, return_counts=True)
        of = row[first]
        explained = _available(event, self._seen, self._time, code[first], self._cutoffs[of], self._begins[of])
        wrong = np.flatnonzero(needed > explained)
        future = np.zeros(len(wrong), np.bool_)
        for n, found in enumerate(wrong.tolist()):
            future[n] = (self._seen[event == code[first[found]]] >= self._cutoffs[of[found]]).any()
        for kind, numbers in (("future behavior", wrong[future]), ("behavior", wrong[~future])):
            for number in numbers[:SHOWN].tolist():
                yield kind, 1, *self._described(int(of[number]), int(place[first[number]]), event == code[first[number]])
            yield from self._rest(kind, of[numbers])

    def _described(self, row: int, place: int, same: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        held = json.dumps(
            {column: lists[row, place].item() for column, lists in zip(self._plan.columns, self._lists, strict=True)}
        )
        end = int(self._cutoffs[row])
        later, earlier = self._seen[same & (self._seen >= end)], self._time[same & (self._time < self._begins[row])]
        said = f"no such event of the user before its cutoff, {moment(end)}"
        if len(later):
            said += f"; one at or after it, known from {moment(int(later.min()))} on"
        elif len(earlier):
            said += f", within {self._plan.history.days} days; one older, at {moment(int(earlier.max()))}"
        return *self._sample(row), f"behavior {place}", held, said

    def _rest(self, kind: str, rows: IntArray) -> Iterator[tuple[Any, ...]]:
        """How many findings are not written out, by day."""
        for day, count in Counter(self._samples["day"].take(pa.array(rows[SHOWN:])).to_pylist()).items():
            yield kind, count, day, "", "", "", ""

    def _sample(self, row: int) -> tuple[str, str]:
        return self._samples["day"][row].as_py(), self._samples["impression_id"][row].as_py()


def _integers(table: pa.Table, name: str) -> IntArray:
    column: IntArray = table[name].to_numpy().astype(np.int64)
    return column


def _codes(users: IntArray, values: list[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """A number for each user and tuple of encoded values, of 64 mixed bits."""
    code = users.astype(np.uint64)
    for column in values:
        bits = column.view(np.uint32) if column.dtype.itemsize == 4 else column.astype(np.uint32)
        code = (code ^ bits.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        code ^= code >> np.uint64(29)
    return code


def _places(known: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> IntArray:
    """Where each value lies among sorted ones; behind the last where it is none of them."""
    place = np.searchsorted(known, wanted).astype(np.int64)
    if not len(known):
        return place
    return np.where(known[np.minimum(place, len(known) - 1)] == wanted, place, len(known))


def _available(code: IntArray, seen: IntArray, time: IntArray, wanted: IntArray, ends: IntArray, begins: IntArray) -> IntArray:
    """How many events of a code are known before an end and not older than a begin."""
    return _before(code, seen, wanted, ends) - _before(code, time, wanted, begins)


def _before(code: IntArray, moments: IntArray, wanted: IntArray, limits: IntArray) -> IntArray:
    """How many events of a code lie before a moment: their places in one line, sorted by code, then moment."""
    distinct = np.unique(moments)
    span = len(distinct) + 1
    line = np.sort(code.astype(np.int64) * span + np.searchsorted(distinct, moments))
    found = np.searchsorted(line, wanted * span + np.searchsorted(distinct, limits)) - np.searchsorted(line, wanted * span)
    return found.astype(np.int64)
