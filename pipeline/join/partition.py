"""One partition of users: duplicates left out, labels, profiles and histories found, samples packed, values counted.

All of it works on one table and the arrays that are made of it once, so it is one class, and this file is longer than others.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from mian.contract.document import ID_COLUMN, LABEL_COLUMN, TIME_COLUMN, USER_COLUMN
from pipeline.arrays import BoolArray, IntArray, codes, firsts, pairs, ranks
from pipeline.days import DAY_MICROSECONDS
from pipeline.hashing import uniform
from pipeline.io.arrow_ipc import ipc_bytes
from pipeline.join.blobs import Column, pack, taken, text_column
from pipeline.join.fitting import Fitting
from pipeline.join.histories import Histories, find_histories, listed_histories
from pipeline.join.labels import Clicked, find_clicked
from pipeline.join.matches import BEHAVIORS, CLICKS, ITEMS, LOOKUPS, USERS, Matches, flags, has_flags, ids_of
from pipeline.join.outputs import (
    COUNTS,
    DUPLICATE,
    HASH_COLUMN,
    ITEM_ID_COLUMN,
    MATCHES,
    MOMENTS,
    NO_FILE,
    OUTPUT,
    REJECTED,
    SAMPLE,
    SAMPLES,
    SEEN_COLUMN,
    UNDRAWN,
    USER_ID_COLUMN,
    Output,
)
from pipeline.join.plan import JoinPlan, RawField
from pipeline.join.profiles import find_profiles
from pipeline.join.rows import BEHAVIOR, CLICK, EARLIER, IMPRESSION, ORDER_HASH, PROFILE, ROLE, Rows
from pipeline.logs.recorded import LIST, PLACE
from pipeline.timelines import Timelines


def join_by_user(rows: Rows, plan: JoinPlan, partitions: int) -> DataFrame:
    """Join what belongs to each user.

    Returns:
        Columns of :data:`OUTPUT`; see :mod:`pipeline.join.outputs`.
    """

    def work(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        arrived = list(batches)
        if not arrived:
            return
        table = pa.Table.from_batches(arrived).combine_chunks()
        arrived.clear()
        for kind, day, file, payload in Partition(table, plan).outputs():
            yield pa.RecordBatch.from_pydict(
                {
                    "kind": pa.array([kind]),
                    "day": pa.array([day], pa.int32()).cast(pa.date32()),
                    "file": pa.array([file], pa.int32()),
                    "payload": pa.array([payload], pa.binary()),
                }
            )

    return rows.frame.repartition(partitions, "user_id").mapInArrow(work, OUTPUT)


@dataclass(frozen=True)
class _Impressions:
    """The impressions of a partition: their rows in its table, and what was found of each; all of shape ``(N,)``."""

    rows: IntArray
    times: IntArray
    days: IntArray
    labels: IntArray
    profiles: IntArray

    def take(self, chosen: BoolArray | IntArray | slice) -> _Impressions:
        return _Impressions(self.rows[chosen], self.times[chosen], self.days[chosen], self.labels[chosen], self.profiles[chosen])


class Partition:
    """All rows of some users.

    Args:
        table: columns of :class:`pipeline.join.rows.Rows`.
        plan: what to do.
    """

    def __init__(self, table: pa.Table, plan: JoinPlan) -> None:
        self._table = table
        self._plan = plan
        self._users, _ = codes(table.column("user_id"))
        self._items, self._item_names = codes(table.column("item_id"))
        none = np.full(table.num_rows, -1, np.int64), pa.array([], pa.string())
        self._ids, self._id_names = codes(table.column(ID_COLUMN)) if ID_COLUMN in table.column_names else none
        self._times: IntArray = pc.fill_null(table.column("time"), 0).to_numpy()
        roles = table.column(ROLE).to_numpy()
        self._impressions, self._earlier, self._clicks, self._behaviors, self._profiles = (
            np.flatnonzero(roles & role) for role in (IMPRESSION, EARLIER, CLICK, BEHAVIOR, PROFILE)
        )
        self._behaviors = self._behaviors[self._distinct_behaviors(self._behaviors)]
        self._clicked: Clicked | None = None
        self._hashes: dict[str, IntArray] = {}
        self._columns: dict[str, Column] = {}

    def outputs(self) -> Iterator[Output]:
        """What the partition gives: kind, day, file, payload."""
        plan = self._plan
        days = plan.calendar.numbers(self._times)
        rows = self._impressions
        undrawn = rows[(self._items[rows] < 0) & np.isin(days[rows], list(plan.files_of))]
        yield from self._rejected(UNDRAWN, undrawn, days[undrawn])
        rows = rows[self._items[rows] >= 0]
        keys = pairs(pairs(self._users, self._ids)[rows], days[rows])
        unique = self._distinct(rows, keys)
        labels = self._labels(rows, keys, unique)
        again, rows = rows[~unique], rows[unique]
        impressions = _Impressions(rows, self._times[rows], days[rows], labels, self._profiles_of(rows))
        impressions = impressions.take(np.isin(impressions.days, list(plan.files_of)))
        again = again[np.isin(days[again], list(plan.files_of))]
        yield from self._rejected(DUPLICATE, again, days[again])
        every = impressions
        for name, known in self._known(impressions).items():
            if name in plan.quarantine and not known.all():
                yield from self._rejected(
                    f"log.impressions: nothing is known of it in {name}", impressions.rows[~known], impressions.days[~known]
                )
                impressions = impressions.take(known)
                break
        if plan.samples:
            yield from self._matches(every, days)
        self._columns = self._all_columns()
        if plan.fit is not None:
            yield from self._fit(impressions)
        rates = np.array([plan.kept[day] for day in impressions.days.tolist()], np.float64)
        kept = (impressions.labels == 1) | (self._chance(impressions, 0) < rates)
        drawn = self._drawn(impressions)
        wanted = kept | drawn
        if wanted.any():
            yield from self._samples(impressions.take(wanted), kept[wanted], drawn[wanted])

    def _distinct_behaviors(self, rows: IntArray) -> BoolArray:
        """Of the deliveries of one behavior (user, item, id, ``_once``, action) the first one."""
        keys = pairs(pairs(self._users, self._items)[rows], self._ids[rows])
        keys = pairs(np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64), self._once_and_action(rows))
        return self._distinct(rows, keys)

    def _distinct(self, rows: IntArray, keys: IntArray) -> BoolArray:
        """Of the rows of one key the first in time, then the least."""
        _, place, count = np.unique(keys, return_inverse=True, return_counts=True)
        several = np.flatnonzero(count[place.reshape(-1)] > 1)
        kept = np.ones(len(rows), np.bool_)
        if len(several):
            part = self._table.take(pa.array(rows[several]))
            by = [(name, "ascending") for name in ("time", *part.column_names) if name != ROLE]
            order: IntArray = pc.sort_indices(part, sort_keys=list(dict.fromkeys(by))).to_numpy().astype(np.int64)
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order))
            kept[several] = firsts(keys[several], rank)
        return kept

    def _once_and_action(self, rows: IntArray) -> IntArray:
        """Numbers that are equal where a behavior's action and its ``_once`` are."""
        moments, _ = codes(self._table.column("_once").take(pa.array(rows)))
        actions, _ = codes(self._table.column("action").take(pa.array(rows)))
        return pairs(moments, actions)

    def _labels(self, rows: IntArray, deliveries: IntArray, unique: BoolArray) -> IntArray:
        """The labels of the impressions that are ``unique`` among rows; rows with equal ``deliveries`` are one impression."""
        plan, times = self._plan, self._times
        if plan.attribution is None:
            labels: IntArray = self._table.column(LABEL_COLUMN).take(pa.array(rows)).to_numpy().astype(np.int64)
            if not unique.all():
                # the row with label 1 may be the second delivery, as where it is written again when the label is known
                _, place = np.unique(deliveries, return_inverse=True)
                greatest = np.bincount(place.reshape(-1), weights=labels) > 0
                labels = greatest[place.reshape(-1)].astype(np.int64)
            return labels[unique]
        rows = rows[unique]
        keys = pairs(self._users, self._items if plan.by_item else self._ids)
        every, clicks = np.concatenate([rows, self._earlier]), self._clicks
        ties = functools.partial(_ranked, self._ids[every], self._id_names)
        self._clicked = find_clicked(keys[every], times[every], ties, keys[clicks], times[clicks], plan.attribution)
        return self._clicked.labels[: len(rows)].astype(np.int64)

    def _matches(self, impressions: _Impressions, days: IntArray) -> Iterator[Output]:
        """How many rows of the wanted days found their partner; ``days`` are those of all rows."""
        plan, table, matches = self._plan, self._table, Matches(self._plan.files_of)
        if plan.attribution is not None and self._clicked is not None:
            found, early, rows = self._clicked.matched, self._clicked.early, self._clicks
            # what may belong to an impression from before those that were read says nothing
            known = np.flatnonzero(found | early | (self._times[rows] - plan.attribution >= plan.impressions_from))
            names = ids_of(table, "item_id" if plan.by_item else ID_COLUMN, rows[known], with_user=True)
            matches.add(CLICKS, days[rows[known]], found[known], names, early[known])
        if has_flags(table, ITEMS):
            matches.add(
                ITEMS, impressions.days, flags(table, ITEMS, impressions.rows), ids_of(table, "item_id", impressions.rows)
            )
            behaviors = self._behaviors
            if plan.behaviors_need_items:
                matches.add(BEHAVIORS, days[behaviors], flags(table, ITEMS, behaviors), ids_of(table, "item_id", behaviors))
        if plan.has_users:
            profiles = np.isin(self._users[impressions.rows], self._users[self._profiles])
            found = flags(table, USERS, impressions.rows) if has_flags(table, USERS) else profiles
            matches.add(USERS, impressions.days, found, ids_of(table, "user_id", impressions.rows))
        for number in range(plan.lookups):
            name = f"{LOOKUPS}.{number}"
            matches.add(name, impressions.days, flags(table, name, impressions.rows), lambda rows: [])
        for day, payload in matches.payloads():
            yield MATCHES, day, NO_FILE, payload

    def _profiles_of(self, rows: IntArray) -> IntArray:
        """Rows of the partition's table, -1 where nothing is known."""
        plan, profiles = self._plan, self._profiles
        if not len(profiles):
            return np.full(len(rows), -1, np.int64)
        table = self._table.take(pa.array(profiles))
        attributes = [plan.places[column] for column in plan.profile_columns]
        place = find_profiles(
            self._users[rows], self._times[rows], self._users[profiles], table, attributes, plan.max_profile_age
        )
        return np.where(place < 0, -1, profiles[place])

    def _known(self, impressions: _Impressions) -> dict[str, BoolArray]:
        known: dict[str, BoolArray] = {}
        for name in ("items", "users"):
            if f"_{name}_known" in self._table.column_names:
                known[name] = self._table.column(f"_{name}_known").take(pa.array(impressions.rows)).to_numpy().astype(np.bool_)
        return {"users": impressions.profiles >= 0} | known

    def _rejected(self, reason: str, rows: IntArray, days: IntArray) -> Iterator[Output]:
        for day in np.unique(days):
            part = self._table.take(pa.array(rows[days == day])).select([ID_COLUMN, "user_id", "item_id", "time"])
            lines = [json.dumps(row) for row in part.to_pylist()]
            table = pa.table({"reason": [reason] * len(lines), "row": lines})
            yield REJECTED, int(day), NO_FILE, ipc_bytes(table)

    def _hash(self, name: str, rows: IntArray) -> IntArray:
        if name not in self._hashes:
            self._hashes[name] = pc.fill_null(self._table.column(name), 0).to_numpy()
        return self._hashes[name][rows]

    def _all_columns(self) -> dict[str, Column]:
        """Each field's column over the whole partition's table; of behaviors over the distinct ones."""
        columns: dict[str, Column] = {}
        opened: dict[str, Column] = {"item_id": (self._items.astype(np.int32), self._item_names)}  # some share one
        for field in self._plan.fields:
            if field.kind == "time_gap":
                continue
            place = self._plan.places[field.column]
            if place not in opened:
                column = self._table.column(place)
                opened[place] = text_column(column) if field.kind == "text" else _numbers(column)
            columns[field.column] = _rows_of(opened[place], self._behaviors) if field.group == "behaviors" else opened[place]
        return columns

    def _source_rows(self, field: RawField, impressions: _Impressions) -> IntArray:
        return impressions.profiles if field.column in self._plan.profile_columns else impressions.rows

    def _chance(self, impressions: _Impressions, draw: int) -> npt.NDArray[np.float64]:
        return uniform(self._hash(ORDER_HASH, impressions.rows).astype(np.uint64), draw)

    def _chance_of_moment(self, impressions: _Impressions) -> npt.NDArray[np.float64]:
        """Numbers that are equal where user and time are."""
        users = self._hash(USER_COLUMN, impressions.rows).astype(np.uint64)
        return uniform(users ^ (impressions.times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)), 4)

    def _drawn(self, impressions: _Impressions) -> BoolArray:
        """Some impressions of the training days, whatever their labels."""
        fit = self._plan.fit
        if fit is None:
            return np.zeros(len(impressions.rows), np.bool_)
        drawn: BoolArray = self._fitted(impressions) & (self._chance(impressions, 1) < fit.sample_rate)
        return drawn

    def _fitted(self, impressions: _Impressions) -> BoolArray:
        """Whether each impression is of the days that vocabularies are made from."""
        fit = self._plan.fit
        assert fit is not None
        return (impressions.days >= fit.first_day) & (impressions.days <= fit.last_day)

    def _samples(self, impressions: _Impressions, kept: BoolArray, drawn: BoolArray) -> Iterator[Output]:
        """The samples of the impressions that are ``kept``, and those that show what the training days hold."""
        impressions, files, order = self._by_file(impressions)
        kept, drawn = kept[order], drawn[order]
        histories = self._histories(impressions)
        if drawn.any():
            yield SAMPLE, None, None, self._packed(impressions.take(drawn), histories.take(np.flatnonzero(drawn)))
        if not self._plan.samples:
            return
        if not kept.all():
            impressions, files, histories = impressions.take(kept), files[kept], histories.take(np.flatnonzero(kept))
        starts = np.flatnonzero(np.diff(files, prepend=-1) | np.diff(impressions.days, prepend=-1))
        for first, end in itertools.pairwise([*starts.tolist(), len(impressions.rows)]):
            chosen = impressions.take(slice(first, end))
            yield SAMPLES, int(chosen.days[0]), int(files[first]), self._packed(chosen, histories.between(first, end))

    def _by_file(self, impressions: _Impressions) -> tuple[_Impressions, IntArray, IntArray]:
        """The impressions in the order of days and files, the number of each one's file within its day, and the order."""
        counts = np.array([self._plan.files_of[day] for day in impressions.days.tolist()], np.int64)
        chance = self._chance_of_moment(impressions) if self._plan.for_scoring else self._chance(impressions, 2)
        files = (chance * counts).astype(np.int64)
        order = np.lexsort((files, impressions.days))
        return impressions.take(order), files[order], order

    def _histories(self, impressions: _Impressions) -> Histories:
        rows = self._behaviors
        if self._plan.history.recorded:
            return listed_histories(self._lists[impressions.rows], self._lists[rows], self._integers(PLACE)[rows])
        actions, names = codes(self._table.column("action"))
        numbered = (self._items, self._item_names), (self._ids, self._id_names), (actions, names)
        ties = [functools.partial(_ranked, numbers[rows], values) for numbers, values in numbered]
        timelines = Timelines(self._users[rows], self._times[rows], *ties)
        plan = self._plan
        return find_histories(
            self._users[impressions.rows], impressions.times, timelines, self._visible(), plan.history, plan.calendar
        )

    def _visible(self) -> IntArray | None:
        """From when on each behavior was known; None where that is its time."""
        rows = self._behaviors
        if "arrived" not in self._table.column_names:
            return None
        arrived: IntArray = pc.fill_null(self._table.column("arrived").take(pa.array(rows)), 0).to_numpy()
        return arrived if (arrived > self._times[rows]).any() else None

    @functools.cached_property
    def _lists(self) -> IntArray:
        return self._integers(LIST)

    def _integers(self, name: str) -> IntArray:
        column: IntArray = pc.fill_null(self._table.column(name), 0).to_numpy().astype(np.int64)
        return column

    def _packed(self, impressions: _Impressions, histories: Histories) -> bytes:
        times = self._times[self._behaviors][histories.places]
        gaps = np.repeat(impressions.times, histories.lengths) - times
        offsets = pa.array(histories.offsets.astype(np.int32))
        of = np.repeat(np.arange(len(impressions.rows)), histories.lengths)
        same = self._items[self._behaviors][histories.places] == self._items[impressions.rows][of]
        columns: dict[str, pa.Array] = {
            ID_COLUMN: self._table.column(ID_COLUMN).take(pa.array(impressions.rows)).combine_chunks(),
            TIME_COLUMN: pa.array(impressions.times),
            LABEL_COLUMN: pa.array(impressions.labels.astype(np.int32)),
            USER_COLUMN: pa.array(self._hash(USER_COLUMN, impressions.rows)),
            HASH_COLUMN: pa.array(self._hash(ORDER_HASH, impressions.rows)),
            SEEN_COLUMN: pa.array(np.bincount(of[same], minlength=len(impressions.rows)) > 0),
        }
        if self._plan.for_scoring:
            for name, column in ((USER_ID_COLUMN, "user_id"), (ITEM_ID_COLUMN, "item_id")):
                columns[name] = self._table.column(column).take(pa.array(impressions.rows)).combine_chunks()
        for field in self._plan.fields:
            if field.kind == "time_gap":
                columns[field.column] = pa.ListArray.from_arrays(offsets, pa.array(gaps / 1e6))
            elif field.group == "behaviors":
                columns[field.column] = pa.ListArray.from_arrays(offsets, taken(self._columns[field.column], histories.places))
            else:
                columns[field.column] = taken(self._columns[field.column], self._source_rows(field, impressions))
        dated = self._plan.history.recorded != "undated"
        ages = np.bincount(gaps // DAY_MICROSECONDS, minlength=self._plan.history.days + 1) if dated else np.zeros(1, np.int64)
        return pack(columns, ages)

    def _fit(self, impressions: _Impressions) -> Iterator[Output]:
        fit = self._plan.fit
        assert fit is not None
        chosen = impressions.take(self._fitted(impressions))
        positives = chosen.take(chosen.labels == 1) if self._plan.drawn_negatives else chosen
        past = self._past(chosen)
        fitting = Fitting()
        for field in self._plan.fields:
            if field.kind == "time_gap":
                continue
            column = self._columns[field.column]
            if field.group == "behaviors":
                fitting.add(field, column, past, self._users[self._behaviors[past]], None)
            else:
                # the mean of a number is that of all impressions, drawn negatives included
                counted = chosen if field.counts_negatives or field.kind == "number" else positives
                fitting.add(field, column, self._source_rows(field, counted), self._users[counted.rows], counted.rows)
        for kind, payload in ((COUNTS, fitting.counts()), (MOMENTS, fitting.moments())):
            if payload is not None:
                yield kind, None, None, payload

    def _past(self, chosen: _Impressions) -> IntArray:
        """Places of the behaviors that count beside the impressions of the training days."""
        fit, rows = self._plan.fit, self._behaviors
        assert fit is not None
        times = self._times[rows]
        if not self._plan.history.recorded:
            visible = self._visible()
            known = times if visible is None else np.maximum(times, visible)
            counted = (times >= fit.first_moment) & (known < fit.end_moment)
            for begin, end in fit.left_out:
                counted &= (times < begin) | (times >= end)
            return np.flatnonzero(counted)
        # what many impressions of a user hold counts once, as the first of them has it
        places = np.flatnonzero(np.isin(self._lists[rows], self._lists[chosen.rows]))
        rows = rows[places]
        actions, _ = codes(self._table.column("action").take(pa.array(rows)))
        keys = pairs(pairs(self._users[rows], self._items[rows]), actions)
        if self._plan.history.recorded == "dated":
            keys = pairs(np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64), codes(pa.array(times[places]))[0])
        return places[self._distinct(rows, keys)]


def _ranked(numbers: IntArray, values: pa.Array, rows: IntArray) -> IntArray:
    return ranks(numbers[rows], values)


def _rows_of(column: Column, rows: IntArray) -> Column:
    return column[rows] if isinstance(column, np.ndarray) else (column[0][rows], column[1])


def _numbers(column: pa.ChunkedArray) -> Column:
    numbers: npt.NDArray[np.float64] = pc.fill_null(column, float("nan")).to_numpy()
    return numbers
