"""The raw values of the drawn rows' fields: joined by plain loops, evaluated by Spark, all rows of a kind in one select."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract import Encoder
from pipeline.audit.draw import Drawn, Facts
from pipeline.audit.known import with_lookup
from pipeline.audit.raw_fields import ITEM_KNOWN, USER_KNOWN, Member, Members
from pipeline.audit.recompute import Event, KnownRow, Shown, known_at, last_first, once
from pipeline.audit.tables import MICROS, ONCE, USER_KEY, Tables
from pipeline.config import AttributeSource, DataConfig
from pipeline.logs.rules import DAY

_NUMBER = "_number"


@dataclass(frozen=True)
class Values:
    """Some fields of some rows: raw, by column a list, and encoded, by column an array of shape ``(rows,)``."""

    raw: Mapping[str, list[Any]]
    encoded: Mapping[str, npt.NDArray[Any]]


class KnownTable:
    """What a table says of users or items.

    Args:
        table: as collected; None where there is none.
        source: the table's configuration.
        key: the column of the key.
        columns: its attributes, or the fields that were evaluated on it.
    """

    def __init__(self, table: pa.Table | None, source: AttributeSource | None, key: str, columns: Sequence[str]) -> None:
        self.table = table
        self.columns = columns
        self.may_be_missing = source is None or source.missing == "unknown"
        self._max_age = source.max_age_days if source is not None else None
        self._rows: dict[Any, list[KnownRow]] = defaultdict(list)
        if table is not None:
            values = zip(*(table[c].to_pylist() for c in columns), strict=True) if columns else iter([()] * table.num_rows)
            moments = (table[c].to_pylist() for c in (key, "_from", "_arrived", "_to"))
            for row, (name, begin, arrived, end) in enumerate(zip(*moments, strict=True)):
                self._rows[name].append(KnownRow(row, begin, arrived, end, next(values)))

    def rows(self, key: Any) -> list[KnownRow]:
        """All that is said of a key, at whatever time."""
        return self._rows.get(key, [])

    def at(self, key: Any, time: int) -> int | None:
        """The row of the table that was known at a time."""
        row = known_at(self.rows(key), time, self._max_age)
        return row.row if row is not None else None

    def joined(self, table: pa.Table, rows: Sequence[int | None], flag: str) -> pa.Table:
        """Another table with this one's columns; of no row nulls."""
        if self.table is None:
            return table
        found = self.table.take(pa.array(rows, pa.int64()))
        for column in self.columns:
            table = table.append_column(column, found[column])
        return table.append_column(flag, pa.array([row is not None for row in rows]))


class Evaluation:
    """The drawn rows' impressions, profiles and behaviors, and their fields' values.

    Args:
        spark: the session.
        config: the data set.
        tables: the logs; lookups are joined from them.
        fields: what to evaluate.
        facts: what was collected.
        encoder: from raw values to ids and numbers.
    """

    def __init__(
        self, spark: SparkSession, config: DataConfig, tables: Tables, fields: Members, facts: Facts, encoder: Encoder
    ) -> None:
        self._spark = spark
        self._config = config
        self._lookups = tables.lookups
        self._encoder = encoder
        self._facts = facts
        self._fields = fields
        items, users = config.items, config.users
        user_columns = users.attributes if users is not None and fields.users_joined else [m.column for m in fields.profile]
        self.items = KnownTable(facts.items, items, "item_id", items.attributes if items is not None else [])
        self.users = KnownTable(facts.users, users, USER_KEY, user_columns)
        self.profiles = self._encoded(fields.profile, facts.users) if facts.users is not None else Values({}, {})
        self.impressions = _impressions(facts.impressions)

    def behaviors(self) -> tuple[dict[int, list[Event]], Values]:
        """Each user's behaviors, each once, and the fields of all that were collected, by their rows.

        Those of recorded histories are once in each impression's.
        """
        table, recorded = self._facts.behaviors, self._config.recorded
        times = table["_seen" if recorded else MICROS].to_pylist()  # of recorded ones that is the impression's time
        rows = [self.items.at(item, time) for item, time in zip(table["item_id"].to_pylist(), times, strict=True)]
        values = self._evaluated(self._fields.behavior_values, self.items.joined(table, rows, ITEM_KNOWN), lookups=False)
        events: dict[int, list[Event]] = defaultdict(list)
        names = (USER_KEY, "impression_id", "item_id", "action", ONCE, MICROS, "_seen")
        columns = (table[name].to_pylist() for name in names)
        for row, (user, name, item, action, day, time, seen) in enumerate(zip(*columns, strict=True)):
            event = Event(row, name, item, action, day, time, seen, tuple(column[row] for column in values.raw.values()))
            events[user].append(event)
        return {user: theirs if recorded else once(theirs) for user, theirs in events.items()}, values

    def shown(self, drawn: Sequence[Drawn]) -> tuple[list[Shown | None], list[int | None], Values]:
        """For each drawn row its impression in the log, the place of its values, and the values of all.

        Of several deliveries of a day the first in time counts, then that of the least item, then of the least values.
        """
        places: list[int] = []
        rows: list[Shown] = []
        for place, row in enumerate(drawn):
            same = [s for s in self.impressions.get(row.user, []) if s.impression_id == row.base_id and s.day == row.day]
            first = min(((s.time, "" if row.negative else s.item) for s in same), default=None)
            for shown in same:
                if (shown.time, "" if row.negative else shown.item) == first:
                    places.append(place)
                    rows.append(shown)
        table = self._facts.impressions.take(pa.array([shown.row for shown in rows], pa.int64()))
        items = [drawn[p].item if drawn[p].negative else shown.item for p, shown in zip(places, rows, strict=True)]
        table = table.set_column(table.schema.get_field_index("item_id"), "item_id", pa.array(items, pa.string()))
        if self._config.log.kind == "positives_only":
            labels = pa.array([int(not drawn[place].negative) for place in places], pa.int32())
            table = table.append_column("label", labels)
        known = [self.items.at(item, shown.time) for item, shown in zip(items, rows, strict=True)]
        table = self.items.joined(table, known, ITEM_KNOWN)
        if self._fields.users_joined:
            users = [self.users.at(drawn[p].user, shown.time) for p, shown in zip(places, rows, strict=True)]
            table = self.users.joined(table, users, USER_KNOWN)
        values = self._evaluated(self._fields.shown, table, lookups=True)
        best: dict[int, int] = {}
        for number, place in enumerate(places):
            if place not in best or self._rank(rows, known, values, number) < self._rank(rows, known, values, best[place]):
                best[place] = number
        return [rows[best[p]] if p in best else None for p in range(len(drawn))], [best.get(p) for p in range(len(drawn))], values

    def _rank(self, rows: Sequence[Shown], known: Sequence[int | None], values: Values, row: int) -> tuple[Any, ...]:
        return last_first(rows[row].label), known[row] is not None, *(last_first(column[row]) for column in values.raw.values())

    def _evaluated(self, fields: Sequence[Member], table: pa.Table, *, lookups: bool) -> Values:
        frame = self._spark.createDataFrame(table.append_column(_NUMBER, pa.array(range(table.num_rows), pa.int64())))
        if lookups:
            frame = self._looked_up(frame)
        columns = [member.value(frame).alias(f"_value_{member.column}") for member in fields]
        raw = frame.select(_NUMBER, *columns).toArrow().sort_by(_NUMBER).drop_columns([_NUMBER])
        return self._encoded(fields, raw.rename_columns([name.removeprefix("_value_") for name in raw.column_names]))

    def _looked_up(self, frame: DataFrame) -> DataFrame:
        for lookup, table in zip(self._config.lookups, self._lookups, strict=True):
            wanted = table.join(F.broadcast(frame.select(*lookup.keys).distinct()), list(lookup.keys), "left_semi")
            frame = with_lookup(frame, wanted, lookup)
        return frame

    def _encoded(self, fields: Iterable[Member], raw: pa.Table) -> Values:
        columns = {member.column: raw[member.column].combine_chunks() for member in fields}
        encoded = {member.column: self._encoder.encode(member.contract, columns[member.column]) for member in fields}
        return Values({name: column.to_pylist() for name, column in columns.items()}, encoded)


def _impressions(table: pa.Table) -> dict[int, list[Shown]]:
    shown: dict[int, list[Shown]] = defaultdict(list)
    labels = table["label"].to_pylist() if "label" in table.column_names else [None] * table.num_rows
    columns = (table[name].to_pylist() for name in (USER_KEY, "impression_id", "item_id", MICROS, DAY))
    for row, (user, name, item, time, day) in enumerate(zip(*columns, strict=True)):
        shown[user].append(Shown(row, name, item, time, str(day), labels[row]))
    return shown
