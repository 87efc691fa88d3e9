"""The document of a monitoring: by day, each measure beside its limits, and what to do about an alarm."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mian.monitoring.settings import MonitoringConfig

Kind = Literal["missing", "rows", "unscored", "unknown", "values", "scores", "click rate", "calibration", "AUC", "logloss"]
State = Literal["quiet", "alarm", "cannot tell"]
#: Causes before what they cause.
ORDER: tuple[Kind, ...] = (
    "missing", "rows", "unscored", "unknown", "values", "click rate", "scores", "calibration", "AUC", "logloss")  # fmt: skip
REMEDIES: dict[Kind, str] = {
    "missing": "Build or score the day again (jobs/build_samples.py, jobs/score.py), or find out why it has no logs.",
    "rows": "Compare the day's impression log with that of the days before; where it was not whole, build the day anew.",
    "unscored": "Score the day again (jobs/score.py); compare its candidates with the impression log.",
    "unknown": "Look at the field in the day's logs: a join that broke, other spellings, or values that are new. For new values, build "
    "with --extend-vocabularies and train on the new days.",
    "values": "Look at the field in the day's logs, and at jobs/describe.py. Where users or items changed in truth, train on the new days.",
    "click rate": "Look whether the day's click log is whole. Where users changed in truth, train on the new days.",
    "scores": "Look at the fields above. Where none changed, look which version made the scores.",
    "calibration": "Where the logs are right, train on the new days; calibration: platt puts the mean right.",
    "AUC": "Where the logs are right, train on the new days. Where it began with another version, jobs/promote.py --rollback.",
    "logloss": "Where the logs are right, train on the new days. Where it began with another version, jobs/promote.py --rollback.",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Strict):
    """A measure of a day."""

    kind: Kind
    name: str
    """Such as ``calibration`` or ``unknown candidate_item_id``."""
    state: State
    value: float | None
    """None where it is undefined."""
    low: float | None = None
    """The 95 % interval over users, where there is one."""
    high: float | None = None
    expected: float | None = None
    """The mean of the reference days."""
    lowest: float | None = None
    """The limits; an alarm is outside. None where any is good, or nothing can be told."""
    highest: float | None = None

    @property
    def excess(self) -> float:
        """How far it lies from the expected value, in widths from there to the limit: an alarm is above 1."""
        if self.value is None or self.expected is None or self.highest is None:
            return 0.0
        bound = self.highest if self.value >= self.expected or self.lowest is None else self.lowest
        width = abs(bound - self.expected)
        return abs(self.value - self.expected) / width if width else float("inf")

    def found(self) -> str:
        """What was found, beside what is usual."""
        if self.value is None:
            return f"no {self.name}" if self.kind == "missing" else "undefined"
        if self.kind in ("values", "scores"):
            return f"{self.name} are not spread as usual: stability index {shown(self, self.value)}, usual is {self.usual()}"
        return f"{self.name} {shown(self, self.value)}, usual is {self.usual()}"

    def usual(self) -> str:
        """The limits as text; empty where there are none."""
        if self.highest is None:
            return ""
        return (
            f"up to {shown(self, self.highest)}"
            if self.lowest is None
            else f"{shown(self, self.lowest)} to {shown(self, self.highest)}"
        )


class DayReport(_Strict):
    """A day."""

    day: dt.date
    is_reference: bool
    rows: int
    clicks: int
    users: int
    version: str | None
    """Of the model that scored it; None of a day without samples."""
    measures: tuple[Measured, ...]

    @property
    def alarms(self) -> tuple[Measured, ...]:
        """Measures outside their limits, causes first; of one kind in the order of the samples' fields."""
        found = [measured for measured in self.measures if measured.state == "alarm"]
        return tuple(sorted(found, key=lambda measured: ORDER.index(measured.kind)))


class MonitoringReport(_Strict):
    """What ``jobs/monitor.py --json`` writes."""

    format: Literal["mian-monitoring"] = "mian-monitoring"
    version: Literal[1] = 1
    model: str
    """The version that monitoring was asked for."""
    scores: str | None
    """The folder of published scores; None where the model scored the days for this report."""
    levels: dict[Literal["model", "field"], float]
    """Chance that one measure of a day like the reference days lies outside its limits: of rows, click rate and metrics; of scores and
    fields."""
    left_out: tuple[str, ...]
    """Columns that the calendar decides."""
    days: tuple[DayReport, ...]
    """In order of time, the reference days among them."""
    settings: MonitoringConfig

    @property
    def looked_at(self) -> tuple[DayReport, ...]:
        """The days that are compared."""
        return tuple(day for day in self.days if not day.is_reference)

    @property
    def reference(self) -> tuple[DayReport, ...]:
        """The days that they are compared with."""
        return tuple(day for day in self.days if day.is_reference)

    @property
    def alarms(self) -> tuple[DayReport, ...]:
        """The days that have an alarm."""
        return tuple(day for day in self.looked_at if day.alarms)

    def headline(self) -> str:
        """One sentence."""
        count = len(self.looked_at)
        if not self.alarms:
            return (
                f"No alarm: {self._short_name} and its logs are as usual on {'the day' if count == 1 else f'all {count} days'}."
            )
        days = ", ".join(str(day.day) for day in self.alarms[:4]) + (" ..." if len(self.alarms) > 4 else "")
        return f"Alarm on {len(self.alarms)} of {count} day{'s' if count > 1 else ''} of {self._short_name}: {days}."

    @property
    def _short_name(self) -> str:
        """A registered version as it is; of an id the first digits."""
        return self.model if "/" in self.model else self.model[:12]

    def text(self) -> str:
        """The report as it is printed."""
        return "\n".join([*self._lines(), "", self.headline(), *(f"  {line}" for line in self._steps())])

    def _lines(self) -> Iterator[str]:
        for day in self.days:
            said = "reference" if day.is_reference else "quiet" if not day.alarms else f"ALARM  {_causes(day)}"
            metrics = {
                measured.name: measured.value for measured in day.measures if measured.kind in ("logloss", "AUC", "calibration")
            }
            values = "  ".join(
                f"{name} {f'{value:.4f}' if (value := metrics.get(name)) is not None else '-':>6}"
                for name in ("logloss", "AUC", "calibration")
            )
            yield f"{day.day}  {day.rows:>9,} rows  {values}  {said}"

    def _steps(self) -> Iterator[str]:
        for day in self.alarms:
            yield f"{day.day}: {day.alarms[0].found()}. {REMEDIES[day.alarms[0].kind]}"


def shown(measured: Measured, value: float) -> str:
    """A value of a measure as people read it."""
    if measured.kind == "rows":
        return f"{value:,.0f}"
    if measured.kind in ("unknown", "unscored", "click rate"):
        return f"{max(0.0, value):.2%}"
    return f"{value:.4f}" if measured.kind in ("AUC", "logloss") else f"{value:.3f}"


def _causes(day: DayReport) -> str:
    names = [measured.name for measured in day.alarms]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
