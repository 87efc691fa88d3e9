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
class Click:
    time: dt.datetime
    item_id: str
    impression_id: str
    user_id: str


@dataclass(frozen=True, order=True)
class Snapshot:
    user_id: str
    valid_from: dt.datetime
    age: str


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


def samples(
    impressions: Iterable[Impression],
    clicks: Sequence[Click],
    snapshots: Sequence[Snapshot],
    categories: dict[str, str],
    *,
    attribution: dt.timedelta,
    window: dt.timedelta,
    length: int,
) -> dict[str, Sample]:
    """All samples by impression id."""
    result = {}
    kept: dict[str, Impression] = {}
    for impression in impressions:  # of one id, the first in time and then the least
        if impression.impression_id not in kept or impression < kept[impression.impression_id]:
            kept[impression.impression_id] = impression
    for impression in kept.values():
        label = 0
        for click in clicks:
            late = click.time - impression.time
            if click.impression_id == impression.impression_id and dt.timedelta(0) <= late < attribution:
                label = 1
        history = []
        for click in set(clicks):
            if click.user_id == impression.user_id and impression.time - window <= click.time < impression.time:
                history.append(click)
        recent = sorted(history, reverse=True)[:length]  # by time, then item, then impression
        age = None
        for snapshot in sorted(snapshots):
            if snapshot.user_id == impression.user_id and snapshot.valid_from < impression.time:
                age = snapshot.age
        result[impression.impression_id] = Sample(
            impression.impression_id,
            label,
            impression.item_id,
            categories.get(impression.item_id),
            age,
            impression.device,
            tuple(click.item_id for click in recent),
            tuple(categories.get(click.item_id) for click in recent),
        )
    return result
