"""Which days a build has to make, why, and how many at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from mian.contract import Day, Split
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import day_fingerprint
from pipeline.dataset.inputs import Inputs, find_inputs
from pipeline.days import ONE_DAY, days_between


@dataclass(frozen=True)
class Schedule:
    """What is to be done with some days.

    ``finished`` are all days of the data set that can stay; ``inputs`` and ``reasons`` are of the days asked for, a reason being empty
    where the day is finished and unchanged. ``input_days`` are those of the days asked for, see :class:`mian.contract.Day`; ``gone``
    says in words what the published samples of a day were made from that is not there any more.
    """

    finished: Mapping[dt.date, Day]
    inputs: Mapping[dt.date, str]
    reasons: Mapping[dt.date, str]
    input_days: Mapping[dt.date, Mapping[str, tuple[Split, ...]]] = field(default_factory=dict)
    gone: Mapping[dt.date, str] = field(default_factory=dict)

    @property
    def stale(self) -> tuple[dt.date, ...]:
        """The days to be built."""
        return tuple(day for day, reason in self.reasons.items() if reason)

    @property
    def kept(self) -> tuple[dt.date, ...]:
        """The days that are left as they are."""
        return tuple(day for day, reason in self.reasons.items() if not reason)


def schedule(
    spark: SparkSession,
    config: DataConfig,
    finished: Mapping[dt.date, Day],
    vocabularies: str,
    days: Iterable[dt.date],
    published: Iterable[Day] = (),
) -> Schedule:
    """Find out which days are missing, or of other logs or another configuration.

    Args:
        spark: the session.
        config: the data set.
        finished: the days that are there and whole.
        vocabularies: the fingerprint of the vocabularies that days are made with.
        days: the days asked for.
        published: the days that readers read.
    """
    inputs = find_inputs(spark, config, days)
    fingerprints = inputs.fingerprints
    reasons = {day: _reason(config, finished.get(day), vocabularies, day, fingerprints[day]) for day in sorted(fingerprints)}
    needed = {
        day: {name: _as_spans(found) for name, found in days_by_source.items()} for day, days_by_source in inputs.days.items()
    }
    gone = {day.day: lost for day in published if reasons.get(day.day) and (lost := _gone(day, inputs))}
    return Schedule(finished, fingerprints, reasons, needed, gone)


def _gone(day: Day, inputs: Inputs) -> str:
    """The days of logs that a day's samples were made from and that have no files any more, in words."""
    lost = []
    for name, made_from in day.input_days.items():
        present_days = inputs.there.get(name)
        if present_days:  # a source without any files is refused where it is read
            missing = {d for span in made_from for d in days_between(span.first, span.last)} - present_days
            lost += [f"{name} of {spans(missing)}"] * bool(missing)
    return ", ".join(lost)


def _as_spans(days: Iterable[dt.date]) -> tuple[Split, ...]:
    return tuple(Split(first=run[0], last=run[-1]) for run in runs(days))


def _reason(config: DataConfig, finished: Day | None, vocabularies: str, day: dt.date, inputs: str) -> str:
    """Why a day is to be built; nothing where it is finished and unchanged."""
    if finished is None:
        return "missing"
    if finished.fingerprint == day_fingerprint(config, day, vocabularies, inputs):
        return ""
    return "its logs changed" if finished.inputs != inputs else "the configuration changed"


def passes(days: list[dt.date], rows: Mapping[dt.date, int], most: int) -> list[list[dt.date]]:
    """A run of days cut so that each part has about so many rows at most, but a day at least."""
    parts: list[list[dt.date]] = []
    size = 0
    for day in days:
        if not parts or size + rows.get(day, 0) > most:
            parts.append([])
            size = 0
        parts[-1].append(day)
        size += rows.get(day, 0)
    return parts


def runs(days: Iterable[dt.date]) -> list[list[dt.date]]:
    """Days as runs without gaps."""
    parts: list[list[dt.date]] = []
    for day in sorted(days):
        if parts and day - parts[-1][-1] == ONE_DAY:
            parts[-1].append(day)
        else:
            parts.append([day])
    return parts


def spans(days: Iterable[dt.date]) -> str:
    """Days as text, with runs of days as spans: ``2026-01-01 to 2026-01-31, 2026-02-14``."""
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs(days))
