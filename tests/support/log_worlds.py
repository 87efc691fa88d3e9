"""Generated worlds: a few users on a coarse clock, so that events tie; with duplicates, orphans, late and early rows, changing profiles."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import DataConfig
from tests.support import oracle
from tests.support.oracle import Event, Impression, Known, Rules

FIRST = dt.date(2026, 1, 1)
LAST = dt.date(2026, 2, 9)
ITEMS = [f"i{n}" for n in range(6)]
ACTIONS = ("cart", "click", "purchase")
SECOND = dt.timedelta(seconds=1)


class World:
    def __init__(self, number: int) -> None:
        self.draw = random.Random(number)
        users = [f"w{number}-u{n}" for n in range(self.draw.randint(1, 4))]
        self.step = self.draw.choice([1, 60, 3600, 86_400, 7 * 86_400])
        self.impressions: list[Impression] = []
        self.clicks: list[Event] = []
        self.others: list[Event] = []
        for n in range(self.draw.randint(1, 30)):
            shown = Impression(
                self.moment(), f"w{number}-p{n}", self.draw.choice(users), self.draw.choice(ITEMS), self.draw.choice("ab")
            )
            self.impressions += [shown] * self.draw.choice([1] * 9 + [2])
            if self.draw.random() < 0.6:
                late = self.draw.choice([0, 0, 1, self.step, 86_399, 86_400, 86_401, 40 * 86_400, -1, -self.step])
                click = self.event(shown.time + late * SECOND, shown.item_id, shown.impression_id, "click", shown.user_id)
                self.clicks += [click] * self.draw.choice([1, 1, 1, 2])
        for n in range(self.draw.randint(0, 10)):
            self.clicks.append(
                self.event(self.moment(), self.draw.choice(ITEMS), f"w{number}-orphan{n}", "click", self.draw.choice(users))
            )
            action = self.draw.choice(ACTIONS)
            self.others.append(
                self.event(self.moment(), self.draw.choice(ITEMS), f"w{number}-o{n}", action, self.draw.choice(users))
            )
        self.users = [
            self.known(user, self.draw.choice(["20", "30", "40"])) for user in users for _ in range(self.draw.randint(0, 3))
        ]

    def moment(self) -> dt.datetime:
        span = (LAST - FIRST).days * 86_400
        steps = self.draw.randint(0, min(span // self.step, self.draw.choice([5, 50, span])))
        return dt.datetime(2026, 1, 1) + min(steps * self.step, span) * SECOND

    def event(self, time: dt.datetime, item: str, impression: str, action: str, user: str) -> Event:
        late = self.draw.choice([0, 0, 0, 1, self.step, 86_400, 5 * 86_400])
        return Event(time, item, impression, action, user, time + late * SECOND)

    def known(self, key: str, value: str) -> Known:
        start = self.moment()
        end = start + self.draw.choice([1, self.step, 86_400, 10 * 86_400]) * SECOND if self.draw.random() < 0.5 else None
        late = self.draw.choice([0, 0, 1, self.step, 3 * 86_400])
        return Known(key, start, value, end, start + late * SECOND)


class Worlds:
    """Many worlds in one set of logs, and what the brute force says of them."""

    def __init__(self, count: int, rules: Rules, several_actions: bool = False) -> None:
        self.rules = rules
        self.several_actions = several_actions
        worlds = [World(number) for number in range(count)]
        self.impressions = [i for world in worlds for i in world.impressions]
        self.clicks = [c for world in worlds for c in world.clicks]
        self.others = [e for world in worlds for e in world.others]
        self.users = [u for world in worlds for u in world.users]
        draw = World(count)  # one table of items for all
        self.items = [draw.known(item, f"c{n % 3}") for n, item in enumerate(ITEMS[:5]) for _ in range(3)]
        if not (rules.arrivals or rules.max_age):
            self.items = [Known(k.key, dt.datetime(2020, 1, 1), k.value, None, dt.datetime(2020, 1, 1)) for k in self.items[::3]]
            self.users = [Known(k.key, k.valid_from, k.value, None, k.valid_from) for k in self.users]
        self.expected: dict[str, oracle.Sample] = {}
        for world in worlds:
            behaviors = [*world.clicks, *world.others] if several_actions else world.clicks
            users = [u for u in self.users if u.key.startswith(world.impressions[0].user_id.split("-")[0] + "-")]
            self.expected |= oracle.samples(world.impressions, world.clicks, behaviors, users, self.items, rules)

    def write(self, folder: Path) -> DataConfig:
        """Logs as Parquet, and their configuration."""
        event = ["impression_id", "user_id", "item_id", "time"]
        _write(folder / "impressions.parquet", self.impressions, [*event, "device"])
        _write(folder / "clicks.parquet", self.clicks, [*event, "arrived"])
        for action in ACTIONS:
            rows = [e for e in self.others if e.action == action] + (self.clicks if action == "click" else [])
            _write(folder / f"{action}.parquet", rows, [*event, "arrived"])
        for name, rows in (("users", self.users), ("items", self.items)):
            _write(folder / f"{name}.parquet", rows, ["key", "valid_from", "valid_to", "arrived", "value"])
        return DataConfig.model_validate(self.config(folder))

    def config(self, folder: Path) -> dict[str, Any]:
        rules = self.rules
        event = {c: c for c in ("impression_id", "user_id", "item_id", "time")}
        arrived = {"arrived": "arrived"} if rules.arrivals else {}
        known = {"valid_from": "valid_from", "valid_to": "valid_to", **arrived} if rules.arrivals or rules.max_age else {}
        age = {"max_age_days": rules.max_age.total_seconds() / 86_400} if rules.max_age else {}
        days = {i.time.date() for i in self.impressions}
        every = {FIRST + dt.timedelta(days=n) for n in range((LAST - FIRST).days + 1)}
        sources = {action: {"path": str(folder / f"{action}.parquet"), "columns": {**event, **arrived}} for action in ACTIONS}
        return {
            "name": "worlds",
            "samples": str(folder / "samples"),
            "log": {
                "kind": "impressions_and_clicks",
                "impressions": {"path": str(folder / "impressions.parquet"), "columns": {**event, "device": "device"}},
                "clicks": {"path": str(folder / "clicks.parquet"), "columns": {**event, **arrived}},
                "attribution_hours": rules.attribution.total_seconds() / 3600,
                "attribution_by": "user_and_item" if rules.by_item else "impression_id",
                "behaviors": sources if self.several_actions else {},
                "empty_days": sorted(every - days),
            },
            "users": {
                "path": str(folder / "users.parquet"),
                "columns": {"user_id": "key", "age": "value", **(known or {"valid_from": "valid_from"})},
                **age,
            },
            "items": {"path": str(folder / "items.parquet"), "columns": {"item_id": "key", "category": "value", **known}, **age},
            "fields": {
                "candidate": {"item_id": {}, "category": {}},
                "behaviors": {"item_id": {}, "category": {}, "action": {}, "gap": {"kind": "time_gap"}},
                "user": {"age": {}},
                "context": {"device": {}},
            },
            "history": {
                "length": rules.length,
                "days": rules.window.days,
                "cutoff": "previous_day" if rules.previous_day else "impression",
                "lag_hours": rules.lag.total_seconds() / 3600,
            },
            "splits": {"train": {"first": FIRST, "last": LAST}},
        }


def _write(path: Path, rows: Iterable[object], columns: list[str]) -> None:
    rows = list(rows)
    moments = ("time", "arrived", "valid_from", "valid_to")
    kinds = {c: pa.timestamp("us", tz="UTC") if c in moments else pa.string() for c in columns}
    pq.write_table(pa.table({c: pa.array([getattr(row, c) for row in rows], kind) for c, kind in kinds.items()}), path)
