"""A data set whose every figure is written down: made without Spark, its samples hold nothing but what a description reads."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa

from mian.contract import Contract, Day, History, Label, Matched, Quality, Reference, Split
from tests.factories import (
    categorical,
    make_contract,
    numeric,
    spans,
    write_contract,
    write_day,
    write_file,
    write_vocabularies,
)

DUPLICATE = "log.impressions: a duplicate of another impression"
VALUES = {"item": ["i0", "i1", "i2", "i3"], "category": ["c0", "c1"], "age": ["20s", "30s"], "position": ["10", "2", "1"]}
FIELDS = (
    categorical("candidate", "item_id", "item"),
    categorical("candidate", "category", "category"),
    categorical("behaviors", "item_id", "item"),
    categorical("user", "age", "age"),
    categorical("context", "position", "position"),
    numeric("context", "price", mean=10.0, std=2.0),
)
REFERENCE = {
    "candidate_item_id": Reference(shares=(0.0, 0.4, 0.3, 0.2, 0.1)),
    "user_age": Reference(shares=(0.1, 0.5, 0.4)),
    "context_position": Reference(shares=(0.0, 0.5, 0.3, 0.2)),
    "context_price": Reference(shares=(0.5, 0.5), edges=(1.0,)),
}
HISTORY = (10, 20, 30, 20, 20)
AGES = (100, 50, *[0] * 28, 50)


@dataclass(frozen=True)
class Plan:
    """A day of a hundred samples; counts are by bin, unknown first."""

    day: str
    positives: int = 20
    rows: int = 100
    seen: int = 5
    history: Sequence[int] = HISTORY
    behavior_ages: Sequence[int] = AGES
    items: Sequence[int] = (0, 40, 30, 20, 10)
    age: Sequence[int] = (10, 50, 40)
    position: Sequence[int] = (0, 50, 30, 20)
    position_clicks: Sequence[int] = (0, 10, 5, 5)
    price: Sequence[int] = (50, 50)
    price_clicks: Sequence[int] = (5, 15)
    users: Sequence[Sequence[int]] = ((1, 2), (2, 3))
    """User keys of each file."""
    ids: Sequence[int] = (2, 3, 1)
    """Item ids of each file."""
    category: str = "category"
    """The name of the candidate's second field."""
    log_rows: int = 100
    quarantined: Mapping[str, int] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)
    matched: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    early: int | None = None
    undrawn: int | None = None
    kept: float = 1.0
    final: bool = True
    measured: bool = True

    @property
    def counts(self) -> dict[str, Any]:
        """What the statistics file of the day says."""
        even = [*self.items[:1], *[0] * (len(self.items) - 1)]
        return {
            "rows": self.rows,
            "positives": self.positives,
            "seen": self.seen,
            "history_length": list(self.history),
            "behavior_age_days": list(self.behavior_ages),
            "columns": {
                "candidate_item_id": {"counts": list(self.items), "positives": even},
                f"candidate_{self.category}": {"counts": [0, self.rows, 0], "positives": [0, self.positives, 0]},
                "behavior_item_id": {"counts": [0, 200, 0, 0, 0]},
                "user_age": {"counts": list(self.age), "positives": [0, self.positives, 0]},
                "context_position": {"counts": list(self.position), "positives": list(self.position_clicks)},
                "context_price": {"counts": list(self.price), "positives": list(self.price_clicks)},
            },
        }


def days(first: str, number: int, **same: Any) -> list[Plan]:
    """So many equal days in a row."""
    start = dt.date.fromisoformat(first)
    return [Plan(str(start + dt.timedelta(days=i)), **same) for i in range(number)]


#: Two training days, one of validation and one to test.
SMALL = (*days("2026-03-01", 2), Plan("2026-03-03", users=((3, 4),)), Plan("2026-03-04", users=((5,), (5, 1, 6))))


def write_set(folder: Path, plans: Sequence[Plan] = SMALL, **changes: Any) -> Contract:
    """Write a data set: all days but the last two are for training.

    Args:
        folder: where to; it is made.
        plans: the days in order.
        changes: of the contract.
    """
    built = tuple(_write_planned_day(folder, plan) for plan in plans)
    values: dict[str, Any] = {
        "name": "small set",
        "vocabularies": write_vocabularies(folder, VALUES),
        "vocabulary_days": Split(first=built[0].day, last=built[-3].day),
        "reference": REFERENCE,
        "history": History(length=4, days=40),
        "label": Label(kind="impressions_and_clicks", attribution_hours=24.0, attribution_by="impression_id"),
        "splits": spans(built, train=len(built) - 2, validation=1, test=1),
        "days": built,
    }
    return write_contract(folder, make_contract(*FIELDS, **(values | changes)))


def _write_planned_day(folder: Path, plan: Plan) -> Day:
    tables = []
    for users in plan.users:
        ids = [plan.ids[place % len(plan.ids)] for place in range(len(users))]
        columns = {
            "user_key": pa.array(users, pa.int64()),
            "candidate_item_id": pa.array(ids, pa.int32()),
            f"candidate_{plan.category}": pa.array([2] * len(users), pa.int32()),
        }
        tables.append(pa.table(columns))
    statistics = quality = None
    if plan.measured:
        statistics = write_file(folder, f"day={plan.day}/statistics.json", json.dumps(plan.counts).encode())
        quality = Quality(
            log_rows=plan.log_rows,
            quarantined=dict(plan.quarantined),
            clicks=30,
            early_clicks=plan.early,
            undrawn=plan.undrawn,
            matched={source: Matched(rows=rows, found=found) for source, (rows, found) in plan.matched.items()},
            unknown={"user_age": plan.age[0] / plan.rows, "candidate_item_id": plan.items[0] / plan.rows},
            drift=dict(plan.drift),
        )
    return write_day(
        folder,
        dt.date.fromisoformat(plan.day),
        tables,
        rows=plan.rows,
        positives=plan.positives,
        statistics=statistics,
        quality=quality,
        negatives_kept=plan.kept,
        final=plan.final,
    )


def table(page: str, name: str) -> list[list[str]]:
    """The texts of a table of a page, line by line."""
    reader = _Table(name)
    reader.feed(page)
    assert reader.rows, f"there is no table {name}"
    return [[" ".join(cell.split()) for cell in row] for row in reader.rows]


class _Table(HTMLParser):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._inside = False
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._inside = ("id", self._name) in attrs
        elif self._inside and tag == "tr":
            self.rows.append([])
        elif self._inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "table"

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data
