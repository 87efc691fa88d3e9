"""From what days look like to a report."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mian.contract import Field
from mian.contract.document import LENGTH_COLUMN
from mian.metrics.paired import Estimate
from mian.monitoring.day_facts import AUC, CALIBRATION, CLICK_RATE, LOGLOSS, ROWS, SCORE, UNSCORED, DayFacts, cautious
from mian.monitoring.days import FEWEST
from mian.monitoring.limits import Limits, Spread, highest, limits, stability
from mian.monitoring.report import DayReport, Kind, Measured

KINDS: dict[str, Kind] = {
    ROWS: "rows",
    CLICK_RATE: "click rate",
    UNSCORED: "unscored",
    LOGLOSS: "logloss",
    AUC: "AUC",
    CALIBRATION: "calibration",
}
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparer:
    """Puts days beside the reference days.

    Args:
        reference: The reference days.
        fields: The fields whose values are compared.
        false_alarm_rate: Chance that a day that is like the reference days raises an alarm.
    """

    reference: Sequence[DayFacts]
    fields: Sequence[Field]
    false_alarm_rate: float

    @property
    def model_level(self) -> float:
        """Chance of a false alarm of each of rows, click rate and the model's metrics, which have half of the chance of a day."""
        return self.false_alarm_rate / 2 / len(self.reference[0].measures)

    @property
    def field_level(self) -> float:
        """That of each measure of the scores and the fields, which have the other half."""
        return self.false_alarm_rate / 2 / (len(self.reference[0].unknown) + len(self.reference[0].counts))

    def report(self, facts: DayFacts, version: str) -> DayReport:
        """A day, which may be a reference day itself: then it is compared with nothing."""
        is_reference = any(facts is each for each in self.reference)
        measures = tuple(self._plain(facts) if is_reference else self._compared(facts))
        return DayReport(
            day=facts.day,
            is_reference=is_reference,
            rows=facts.rows,
            clicks=facts.clicks,
            users=facts.users,
            version=version,
            measures=measures,
        )

    def _plain(self, facts: DayFacts) -> Iterator[Measured]:
        for name, kind, estimate, _ in _estimates(facts):
            yield _measured(name, kind, estimate, None)

    def _compared(self, facts: DayFacts) -> Iterator[Measured]:
        if facts.rows == 0:
            yield missing_measure("samples")
            return
        for name, kind, estimate, is_upward in _estimates(facts):
            known = self._known(name)
            level = self.field_level if kind == "unknown" else self.model_level
            if len(known) < FEWEST or math.isnan(estimate.standard_error):
                found = None
            elif is_upward:
                found = highest(list(known.values()), list(known), estimate, facts.day.toordinal(), level)
            else:
                found = limits(list(known.values()), estimate, level)
            yield _measured(name, kind, estimate, found)
        missing = [name for name in (LOGLOSS, AUC, CALIBRATION) if name not in facts.measures]
        yield from (Measured(kind=KINDS[name], name=name, state="cannot tell", value=None) for name in missing)
        ids = {field.column for field in self.fields if field.is_categorical}
        for column in (SCORE, LENGTH_COLUMN, *(field.column for field in self.fields)):
            known_days = [day for day in self.reference if column in day.counts and day.counts[column].any()]
            if len(known_days) < FEWEST or column not in facts.counts:
                continue
            index, usual = stability(
                [_spread(day, column) for day in known_days],
                _spread(facts, column),
                self.field_level,
                is_ids=column in ids,
            )
            what: Kind = "scores" if column == SCORE else "values"
            yield _measured(f"values of {column}", what, Estimate(index, math.nan, facts.users), usual)

    def known_days(self, name: str) -> int:
        """How many reference days can tell a measure."""
        return len(self._known(name))

    def _known(self, name: str) -> dict[int, Estimate]:
        """A measure of the reference days that can tell it, by the number of the day."""
        found = {day.day.toordinal(): each for day in self.reference for other, _, each, _ in _estimates(day) if other == name}
        return {day: each for day, each in found.items() if not math.isnan(each.standard_error)}


def missing_day(day: dt.date, what: str) -> DayReport:
    """The report of a day that has none of something, such as samples."""
    measures = (missing_measure(what),)
    return DayReport(day=day, is_reference=False, rows=0, clicks=0, users=0, version=None, measures=measures)


def missing_measure(what: str) -> Measured:
    """That there are none of something."""
    return Measured(kind="missing", name=what, state="alarm", value=None)


def _estimates(facts: DayFacts) -> Iterator[tuple[str, Kind, Estimate, bool]]:
    """Name, kind, value, and whether only high values are a reason for an alarm."""
    for name, estimate in facts.measures.items():
        is_upward = name == UNSCORED
        yield name, KINDS[name], cautious(estimate) if is_upward else estimate, is_upward
    for column, estimate in facts.unknown.items():
        yield f"unknown {column}", "unknown", cautious(estimate), True


def _measured(name: str, kind: Kind, estimate: Estimate, found: Limits | None) -> Measured:
    value, low, high = estimate.value, *_interval(estimate)
    expected, lowest, highest = (None, None, None) if found is None else (found.expected, found.low, found.high)
    is_outside = found is not None and (value > found.high or (found.low is not None and value < found.low))
    figures: Mapping[str, float | None] = {
        "value": value, "low": low, "high": high, "expected": expected, "lowest": lowest, "highest": highest}  # fmt: skip
    if kind == "rows":
        figures = {name: None if figure is None else math.exp(figure) for name, figure in figures.items()}
    return Measured(kind=kind, name=name, state="alarm" if is_outside else "quiet" if found else "cannot tell", **figures)


def _spread(facts: DayFacts, column: str) -> Spread:
    users = facts.measures[ROWS].standard_error ** -2
    return Spread(facts.day.toordinal(), users, facts.counts[column])


def _interval(estimate: Estimate) -> tuple[float | None, float | None]:
    if math.isnan(estimate.standard_error) or estimate.users < 2:
        return None, None
    return estimate.interval(CONFIDENCE)
