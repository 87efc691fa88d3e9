"""The rules of time, the slow obvious way: plain loops over what the logs say of one user.

Nothing here comes from the code that builds samples. All times are microseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.audit.tables import DAY_MICROS, HOUR_MICROS
from pipeline.config import HistoryConfig, Log

UNIX_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


@dataclass(frozen=True)
class Shown:
    """An impression of the log; ``row`` is its place in the collected table."""

    row: int
    impression_id: str
    item: str
    time: int
    day: str
    label: int | None


@dataclass(frozen=True)
class Click:
    """A click of the log."""

    impression_id: str | None
    item: str
    time: int


@dataclass(frozen=True)
class Event:
    """What a user did; ``seen`` is when it had happened and arrived, ``values`` are its fields' raw values."""

    row: int
    impression_id: str | None
    item: str
    action: str | None
    once: int
    time: int
    seen: int
    values: tuple[Any, ...]


@dataclass(frozen=True)
class KnownRow:
    """What a table says of a user or an item from some time on; ``begin`` and ``arrived`` are None where it does not say when."""

    row: int
    begin: int | None
    arrived: int | None
    end: int | None
    values: tuple[Any, ...]


def day_of(time: int, zone: str) -> dt.date:
    """The date that clocks of a time zone show at ``time``."""
    return (UNIX_EPOCH + dt.timedelta(microseconds=time)).astimezone(ZoneInfo(zone)).date()


def midnight(day: dt.date, zone: str) -> int:
    """When a day begins on the clocks of a time zone."""
    return (dt.datetime.combine(day, dt.time(), ZoneInfo(zone)) - UNIX_EPOCH) // dt.timedelta(microseconds=1)


def cutoff(time: int, history: HistoryConfig, zone: str) -> int:
    """Up to when the history of an impression at ``time`` is known; days are those of ``zone``."""
    start = midnight(day_of(time, zone), zone) if history.cutoff == "previous_day" else time
    return start - round(history.lag_hours * HOUR_MICROS)


def attribution(log: Log) -> int:
    """How long after its impression a click still counts."""
    return round(log.attribution_hours * HOUR_MICROS)


def last_first(value: Any) -> tuple[bool, Any]:
    """For sorting: a missing value comes last."""
    return value is None, 0 if value is None else value


def least_first(value: Any) -> tuple[bool, Any]:
    """For sorting: a missing value comes first."""
    return value is not None, 0 if value is None else value


def once(events: Iterable[Event]) -> list[Event]:
    """Events that were delivered twice, once: the first in time, then the first to arrive, then the least."""
    kept: dict[tuple[Any, ...], Event] = {}
    for event in events:
        key = event.item, event.impression_id, event.action, event.once
        other = kept.get(key)
        if other is None or _delivery(event) < _delivery(other):
            kept[key] = event
    return list(kept.values())


def _delivery(event: Event) -> tuple[Any, ...]:
    return event.time, event.seen, *map(last_first, event.values)


def history_of(events: Iterable[Event], time: int, history: HistoryConfig, zone: str) -> list[Event]:
    """The behaviors before an impression at ``time``, the most recent first."""
    end = cutoff(time, history, zone)
    begin = end - history.days * DAY_MICROS
    known = []
    for event in events:
        if begin <= event.time < end and event.seen < end:
            known.append(event)
    known.sort(key=lambda e: (e.time, e.item, least_first(e.impression_id), least_first(e.action)), reverse=True)
    return known[: history.length]


def recorded_history_of(events: Iterable[Event], impression_id: str, time: int) -> list[Event]:
    """The behaviors that an impression brings along, the most recent first: ``once`` is their place, ``seen`` the impression's time."""
    found = {event.once: event for event in events if event.impression_id == impression_id and event.seen == time}
    return [found[place] for place in sorted(found)]


def first_shown(shown: Iterable[Shown]) -> list[Shown]:
    """An impression that was delivered twice on a day, once: the first in time, then that of the least item."""
    kept: dict[tuple[str, str], Shown] = {}
    for row in shown:
        key = row.impression_id, row.day
        if key not in kept or (row.time, row.item) < (kept[key].time, kept[key].item):
            kept[key] = row
    return list(kept.values())


def clicked(impression: Shown, shown: Sequence[Shown], clicks: Iterable[Click], log: Log) -> bool:
    """Whether a click belongs to an impression.

    Args:
        impression: one of ``shown``.
        shown: the impressions of the user, each once.
        clicks: the clicks of the user.
        log: how clicks are attributed.
    """
    window = attribution(log)
    by_id = log.attribution_by == "impression_id"
    for click in clicks:
        latest = None
        for other in shown:
            same = other.impression_id == click.impression_id if by_id else other.item == click.item
            if same and other.time <= click.time:
                latest = max(latest or other, other, key=lambda row: (row.time, row.impression_id))
        if latest == impression and click.time < impression.time + window:
            return True
    return False


def known_at(rows: Iterable[KnownRow], time: int, max_age_days: float | None) -> KnownRow | None:
    """What was known at ``time``: of the rows from before it the one that begins last, if it still counts."""
    best = None
    for row in rows:
        is_known = (row.begin is None or row.begin < time) and (row.arrived is None or row.arrived < time)
        if is_known and (best is None or _rank(row) > _rank(best)):
            best = row
    if best is None or (best.end is not None and best.end <= time):
        return None
    if max_age_days is not None and best.begin is not None and time - best.begin > round(max_age_days * DAY_MICROS):
        return None
    return best


def _rank(row: KnownRow) -> tuple[Any, ...]:
    # of two rows of one beginning the later one to arrive is a correction
    return least_first(row.begin), least_first(row.arrived), *map(least_first, row.values), least_first(row.end)


def negative_allowed(
    item: str,
    time: int,
    sold: Iterable[int],
    shown: Iterable[Shown],
    reach: int,
    window: int,
    zone: str,
    known: Callable[[int], bool],
) -> str | None:
    """Why an item cannot be a drawn negative at ``time``; None where it can.

    Args:
        item: the negative's item.
        time: of the positive.
        sold: the times of the item's events.
        shown: the user's events.
        reach: how far back the user's events count, microseconds.
        window: how long after an event an item counts as alive, microseconds.
        zone: whose days are meant.
        known: whether the table of items knows the item at a time.
    """
    alive = [moment for moment in sold if time - window <= moment < time]
    if not alive:
        late = min((moment for moment in sold if moment >= time), default=None)
        hours = f"no event with {item!r} in the {window / HOUR_MICROS:g} hours before the positive"
        return hours if late is None else f"{hours}, one {(late - time) / HOUR_MICROS:.1f} hours after it"
    # events of one hour are one to the table of items: the first of them says whether the item was known
    start = midnight(day_of(time, zone), zone)
    last_hour = (max(alive) - start) // HOUR_MICROS
    last_seen = min(moment for moment in sold if (moment - start) // HOUR_MICROS == last_hour)
    if not known(time) and known(last_seen):
        return f"that {item!r} was known when it was last seen and no longer is: it is off sale"
    if any(row.item == item and time - reach <= row.time <= time for row in shown):
        return f"that the user has an event with {item!r} in the window before the positive"
    return None
