"""Logs of a few days, small enough to build in seconds, written as a team would: Parquet, a folder a day."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import DataConfig

FIRST = dt.date(2026, 3, 1)
DAYS = [FIRST + dt.timedelta(days=n) for n in range(6)]
EVENT = {"impression_id": "impression_id", "user_id": "user_id", "item_id": "item_id", "time": "ts"}
TIMESTAMP = pa.timestamp("us", tz="UTC")


def write_day(folder: Path, day: dt.date, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    target = folder / f"day={day}"
    target.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), target / "part-0.parquet")


IMPRESSIONS = pa.schema(
    [
        ("impression_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("ts", TIMESTAMP),
        ("device", pa.string()),
        ("clicked", pa.int32()),
        ("bid", pa.float64()),
    ]
)
CLICKS = pa.schema([("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", TIMESTAMP)])


def write_logs(folder: Path, seed: int = 0, per_day: int = 60, days: int = len(DAYS)) -> None:
    """``impressions/``, ``clicks/`` and ``items.parquet`` below a folder; the sixth day has items that the others have not."""
    draw = random.Random(seed)
    dates = [FIRST + dt.timedelta(days=n) for n in range(days)]
    clicks: dict[dt.date, list[dict[str, Any]]] = {day: [] for day in dates}
    for day in dates:
        shown = []
        for n in range(per_day):
            moment = dt.datetime.combine(day, dt.time(), dt.timezone.utc) + dt.timedelta(seconds=draw.randint(0, 80_000))
            clicked = int(draw.random() < 0.3)
            row = {
                "impression_id": f"{day}-{n}",
                "user_id": f"u{draw.randint(0, 7)}",
                "item_id": f"i{draw.randint(0, 19) + 100 * (day == DAYS[-1])}",
                "ts": moment,
                "device": draw.choice(["phone", "desktop"]),
                "clicked": clicked,
                "bid": draw.random() * 10,
            }
            shown.append(row)
            if clicked:
                clicks[day].append(
                    {k: row[k] for k in ("impression_id", "user_id", "item_id")} | {"ts": moment + dt.timedelta(seconds=9)}
                )
        write_day(folder / "impressions", day, shown, IMPRESSIONS)
    for day in dates:
        write_day(folder / "clicks", day, clicks[day], CLICKS)
    items = [f"i{n}" for n in [*range(20), *range(100, 120)]]
    pq.write_table(pa.table({"item_id": items, "category": [f"c{int(i[1:]) % 5}" for i in items]}), folder / "items.parquet")


def config(folder: Path, **changes: Any) -> DataConfig:
    """The configuration of such logs; ``changes`` replace top-level keys."""
    values: dict[str, Any] = {
        "name": "small",
        "samples": str(folder / "samples"),
        "log": {
            "kind": "impressions_and_clicks",
            "impressions": {
                "path": str(folder / "impressions"),
                "columns": {**EVENT, "device": "device", "bid": "bid"},
                "day_column": "day",
            },
            "clicks": {"path": str(folder / "clicks"), "columns": EVENT, "day_column": "day"},
        },
        "items": {"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "category": "category"}},
        "fields": {
            "candidate": {"item_id": {}, "category": {}},
            "behaviors": {"item_id": {}, "category": {}},
            "user": {"user_id": {}},
            "context": {"device": {}, "hour": {"expression": "hour(time)"}, "bid": {"kind": "numeric", "transform": "log"}},
        },
        "history": {"length": 5, "days": 2},
        "splits": {
            "train": {"first": DAYS[0], "last": DAYS[3]},
            "validation": {"first": DAYS[4], "last": DAYS[4]},
            "test": {"first": DAYS[5], "last": DAYS[5]},
        },
        "rows_per_file": 25,
        "examples_per_day": 10,
    }
    return DataConfig.model_validate(values | changes)
