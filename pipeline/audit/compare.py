"""Drawn rows, recomputed and compared with what the samples hold."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from mian.contract import UNKNOWN_ID, Encoder
from pipeline.audit.draw import Drawn, Facts
from pipeline.audit.evaluation import Evaluation
from pipeline.audit.findings import Finding
from pipeline.audit.published_samples import Published, same
from pipeline.audit.raw_fields import Member, Members
from pipeline.audit.recompute import Click, Event, Shown, clicked, first_shown, history_of, negative_allowed, recorded_history_of
from pipeline.audit.tables import DAY_MICROS, HOUR_MICROS, MICROS, USER_KEY, Tables
from pipeline.config import DataConfig


class Comparison:
    """Compares drawn rows with what the logs say.

    Args:
        spark: the session.
        published: the data set.
        config: its rules.
        tables: the logs.
        fields: the fields to compare.
        drawn: the rows.
        facts: what the logs say of their users and items.
    """

    def __init__(
        self,
        spark: SparkSession,
        published: Published,
        config: DataConfig,
        tables: Tables,
        fields: Members,
        drawn: Sequence[Drawn],
        facts: Facts,
    ) -> None:
        self._published = published
        self._config = config
        self._fields = fields
        self._drawn = drawn
        self._encoder: Encoder = published.encoder
        self._evaluation = Evaluation(spark, config, tables, fields, facts, self._encoder)
        self._events, self._behaviors = self._evaluation.behaviors()
        self._shown, self._places, self._values = self._evaluation.shown(drawn)
        self._clicks = _clicks(facts)
        self._sold = _sold(facts)
        self._window = round(config.log.negatives.window_hours * HOUR_MICROS) if config.log.negatives is not None else 0
        current = published.contract.vocabulary_version
        self._older = {str(day.day) for day in published.contract.days if day.vocabulary_version < current}

    def findings(self) -> Iterator[Finding]:
        """What is not as the logs say, drawn row by drawn row."""
        for number, (row, shown) in enumerate(zip(self._drawn, self._shown, strict=True)):
            if row.held is None:
                assert shown is not None  # it was drawn from the log
                yield from self._missing(row, shown)
            elif shown is None:
                yield self._finding(row, "impression", "", "such a sample", "no impression of that id, user and day")
            else:
                yield from self._compared(number, row, shown)

    def _finding(self, row: Drawn, kind: str, column: str, samples: object, logs: object) -> Finding:
        return Finding(kind, str(samples), str(logs), row.day, row.impression_id, column)

    def _missing(self, row: Drawn, shown: Shown) -> Iterator[Finding]:
        """An impression of the log that the samples do not have: a negative may have been left out, and what nothing is known of."""
        thinned = self._config.sampled(dt.date.fromisoformat(row.day)) < 1.0
        if not self._unknown(row, shown) and not (thinned and self._label(row, shown) == 0):
            yield self._finding(row, "missing", "", "no sample of it", "an impression that breaks no rule")

    def _unknown(self, row: Drawn, shown: Shown) -> str:
        """The table that says nothing of the row though it has to."""
        evaluation, time = self._evaluation, shown.time
        item = row.item if row.negative else shown.item
        if not evaluation.items.may_be_missing and item is not None and evaluation.items.at(item, time) is None:
            return "items"
        return "users" if not evaluation.users.may_be_missing and evaluation.users.at(row.user, time) is None else ""

    def _label(self, row: Drawn, shown: Shown) -> int:
        log = self._config.log
        if log.clicks is None:
            if log.kind != "labeled":
                return int(not row.negative)
            # of several deliveries any may bring the label 1
            deliveries = self._evaluation.impressions[row.user]
            return max(s.label or 0 for s in deliveries if (s.impression_id, s.day) == (row.base_id, row.day))
        user_events = first_shown(self._evaluation.impressions[row.user])
        mine = next(s for s in user_events if (s.impression_id, s.day) == (row.base_id, row.day))
        return int(clicked(mine, user_events, self._clicks.get(row.user, []), log))

    def _compared(self, number: int, row: Drawn, shown: Shown) -> Iterator[Finding]:
        held, place = row.held, self._places[number]
        assert held is not None and place is not None
        if held["time"] != shown.time:
            yield self._finding(row, "time", "time", moment(held["time"]), moment(shown.time))
        label = self._label(row, shown)
        if held["label"] != label:
            yield self._finding(row, "label", "label", held["label"], f"{label}, {self._why(label)}")
        unknown = self._unknown(row, shown)
        if unknown:
            yield self._finding(
                row, "quarantine", "", "a sample of it", f"nothing of it in {unknown}, so it is for the quarantine"
            )
        if row.negative and row.item is not None:
            reach = self._config.history.days * DAY_MICROS + round(self._config.history.lag_hours * 3_600_000_000)
            user_events = self._evaluation.impressions[row.user]
            refused = negative_allowed(
                row.item,
                shown.time,
                self._sold.get(row.item, ()),
                user_events,
                reach,
                self._window,
                self._config.day_time_zone,
                functools.partial(self._item_known, row.item),
            )
            if refused is not None:
                yield self._finding(row, "negative", "label", f"a negative of item {row.item!r}", refused)
        yield from self._values_compared(row, shown, place)
        yield from self._history_compared(row, shown)

    def _item_known(self, item: str, time: int) -> bool:
        return self._evaluation.items.at(item, time) is not None

    def _why(self, label: int) -> str:
        log = self._config.log
        if log.clicks is None:
            return "what the log holds"
        return f"{'a' if label else 'no'} click of it within {log.attribution_hours:g} h after it"

    def _values_compared(self, row: Drawn, shown: Shown, place: int) -> Iterator[Finding]:
        assert row.held is not None
        for member in self._fields.shown:
            if not row.negative or row.item is not None or member.column in self._fields.item_free:
                wanted, raw = self._values.encoded[member.column][place], self._values.raw[member.column][place]
                yield from self._one(row, member, wanted, raw)
        known = self._evaluation.users.at(row.user, shown.time) if self._fields.profile else None
        for member in self._fields.profile:
            profiles = self._evaluation.profiles
            raw = profiles.raw[member.column][known] if known is not None else None
            wanted = profiles.encoded[member.column][known] if known is not None else self._nothing(member)
            for finding in self._one(row, member, wanted, raw):
                yield replace(finding, logs=finding.logs + self._later_profile(row, shown, member))

    def _nothing(self, member: Member) -> Any:
        return self._encoder.encode(member.contract, pa.array([None], pa.string() if member.contract.is_text else pa.float64()))[
            0
        ]

    def _later_profile(self, row: Drawn, shown: Shown, member: Member) -> str:
        """Whether a row that was not known yet says what the sample holds."""
        assert row.held is not None
        for known in self._evaluation.users.rows(row.user):
            later = max(known.begin or 0, known.arrived or 0)
            if later >= shown.time and same(row.held[member.column], self._evaluation.profiles.encoded[member.column][known.row]):
                return f"; a row of users known from {moment(later)} on, not before the impression at {moment(shown.time)}, says that"
        return ""

    def _one(self, row: Drawn, member: Member, wanted: Any, raw: Any) -> Iterator[Finding]:
        assert row.held is not None
        held = row.held[member.column]
        if not self._agrees(row, member, held, wanted):
            logs = f"{self._published.words(member.contract, wanted)}, raw {raw!r}"
            yield self._finding(row, "value", member.column, self._published.words(member.contract, held), logs)

    def _agrees(self, row: Drawn, member: Member, held: Any, wanted: Any) -> bool:
        if same(held, wanted):
            return True
        if row.day not in self._older or not member.contract.is_text:
            return False
        # its day was built before the vocabulary was extended, and knew less
        return np.shape(held) == np.shape(wanted) and same(held, np.where(np.asarray(held) == UNKNOWN_ID, UNKNOWN_ID, wanted))

    def _history_compared(self, row: Drawn, shown: Shown) -> Iterator[Finding]:
        assert row.held is not None
        user_events = self._events.get(row.user, []) if self._fields.behaviors else []
        if self._config.recorded:
            history = recorded_history_of(user_events, row.base_id, shown.time)
        else:
            history = history_of(user_events, shown.time, self._config.history, self._config.day_time_zone)
        if row.held["behavior_length"] != len(history):
            yield self._finding(row, "history", "behavior_length", row.held["behavior_length"], len(history))
        for member in self._fields.behaviors:
            wanted = np.zeros(self._config.history.length, np.float64)
            wanted[: len(history)] = self._encoded_history(member, history, shown.time)
            held = row.held[member.column]
            if not self._agrees(row, member, held, wanted):
                yield self._first_difference(row, member, held, wanted, history)
                return  # the other columns differ at the same entries

    def _encoded_history(self, member: Member, history: Sequence[Event], time: int) -> Any:
        if member.is_time_gap:
            gaps = [(time - event.time) / 1e6 for event in history]
            return self._encoder.encode(member.contract, pa.array(gaps, pa.float64()))
        return self._behaviors.encoded[member.column][[event.row for event in history]]

    def _first_difference(
        self, row: Drawn, member: Member, held: Sequence[Any], wanted: Any, history: Sequence[Event]
    ) -> Finding:
        if len(held) != len(wanted):
            return self._finding(row, "history", member.column, f"{len(held)} entries", f"{len(wanted)} entries")
        place = next(n for n in range(len(held)) if not same(held[n], wanted[n]))
        entry = (
            wanted[place].item() if member.config.kind == "numeric" and not member.contract.is_categorical else int(wanted[place])
        )
        words = self._published.words(member.contract, entry)
        if place < len(history):
            words += f", the {history[place].action} of {history[place].item!r} at {moment(history[place].time)}"
        return self._finding(
            row, "history", f"{member.column}[{place}]", self._published.words(member.contract, held[place]), words
        )


def moment(micros: int) -> str:
    """A time in microseconds as text, for a finding."""
    return str(dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros))


def _clicks(facts: Facts) -> dict[int, list[Click]]:
    found: dict[int, list[Click]] = {}
    if facts.clicks is not None:
        table = facts.clicks
        ids = table["impression_id"].to_pylist() if "impression_id" in table.column_names else [None] * table.num_rows
        columns = (table[name].to_pylist() for name in (USER_KEY, "item_id", MICROS))
        for name, user, item, time in zip(ids, *columns, strict=True):
            found.setdefault(user, []).append(Click(name, item, time))
    return found


def _sold(facts: Facts) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    if facts.sold is not None:
        for row in facts.sold.to_pylist():
            found.setdefault(row["item_id"], []).append(row[MICROS])
    return found
