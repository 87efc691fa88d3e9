"""The slow obvious way: one loop over everything for each impression. What it says is what samples must hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Impression:
    time: dt.datetime
    impression_id: str
    user_id: str
    item_id: str
    device: str


@dataclass(frozen=True, order=True)
class Event:
    """A click, or whatever else a user did."""

    time: dt.datetime
    item_id: str
    impression_id: str
    action: str
    user_id: str
    arrived: dt.datetime


@dataclass(frozen=True, order=True)
class Known:
    """What is known of a user or an item from some time on."""

    key: str
    valid_from: dt.datetime
    value: str
    valid_to: dt.datetime | None
    arrived: dt.datetime


@dataclass(frozen=True)
class Rules:
    attribution: dt.timedelta = dt.timedelta(hours=24)
    by_item: bool = False
    window: dt.timedelta = dt.timedelta(days=29)
    length: int = 4
    previous_day: bool = False
    lag: dt.timedelta = dt.timedelta(0)
    arrivals: bool = False
    max_age: dt.timedelta | None = None

    def cutoff(self, time: dt.datetime) -> dt.datetime:
        return (dt.datetime.combine(time.date(), dt.time()) if self.previous_day else time) - self.lag


@dataclass(frozen=True)
class Sample:
    impression_id: str
    label: int
    candidate_item_id: str
    candidate_category: str | None
    user_age: str | None
    context_device: str
    behavior_item_id: tuple[str, ...]
    behavior_category: tuple[str | None, ...]
    behavior_action: tuple[str, ...]
    behavior_gap: tuple[float, ...]


def rank(row: Known, rules: Rules) -> tuple[object, ...]:
    arrived = row.arrived if rules.arrivals else dt.datetime.min
    return row.valid_from, arrived, row.value, row.valid_to or dt.datetime.min


def as_of(table: Sequence[Known], key: str, time: dt.datetime, rules: Rules) -> str | None:
    best = None
    for row in table:
        there = row.valid_from < time and (row.arrived < time or not rules.arrivals)
        if row.key == key and there and (best is None or rank(row, rules) > rank(best, rules)):
            best = row
    if best is None:
        return None
    if best.valid_to is not None and best.valid_to <= time:
        return None
    if rules.max_age is not None and time - best.valid_from > rules.max_age:
        return None
    return best.value


def samples(
    impressions: Iterable[Impression],
    clicks: Sequence[Event],
    behaviors: Sequence[Event],
    users: Sequence[Known],
    items: Sequence[Known],
    rules: Rules,
) -> dict[str, Sample]:
    """All samples by impression id."""
    kept: dict[tuple[str, dt.date], Impression] = {}
    for impression in impressions:  # of one id of a day, the first in time and then the least
        key = impression.impression_id, impression.time.date()
        if key not in kept or impression < kept[key]:
            kept[key] = impression
    clicked = set()
    for click in clicks:
        latest = None
        for shown in kept.values():
            same = shown.item_id == click.item_id if rules.by_item else shown.impression_id == click.impression_id
            before = same and shown.user_id == click.user_id and shown.time <= click.time
            if before and (latest is None or (shown.time, shown.impression_id) > (latest.time, latest.impression_id)):
                latest = shown
        if latest is not None and click.time < latest.time + rules.attribution:
            clicked.add(latest.impression_id)
    result = {}
    for shown in kept.values():
        cutoff = rules.cutoff(shown.time)
        history = []
        for event in {
            (e.time, e.item_id, e.impression_id, e.action, e.user_id): e for e in sorted(behaviors, reverse=True)
        }.values():
            in_window = cutoff - rules.window <= event.time < cutoff
            if event.user_id == shown.user_id and in_window and (event.arrived < cutoff or not rules.arrivals):
                history.append(event)
        recent = sorted(history, reverse=True)[: rules.length]  # by time, then item, then impression, then action
        result[shown.impression_id] = Sample(
            shown.impression_id,
            int(shown.impression_id in clicked),
            shown.item_id,
            as_of(items, shown.item_id, shown.time, rules),
            as_of(users, shown.user_id, shown.time, rules),
            shown.device,
            tuple(event.item_id for event in recent),
            tuple(as_of(items, event.item_id, event.time, rules) for event in recent),
            tuple(event.action for event in recent),
            tuple((shown.time - event.time).total_seconds() for event in recent),
        )
    return result
