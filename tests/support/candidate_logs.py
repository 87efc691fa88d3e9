"""A shop whose pages show several items to a user at one moment: logs, samples, a model, and candidates without labels."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from mian.contract import Contract, read_contract
from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.factories import make_model, write_servable
from tests.support.small_logs import TIMESTAMP, write_day

FIRST = dt.date(2026, 3, 1)
DAYS = [FIRST + dt.timedelta(days=n) for n in range(6)]
IDS = ("impression_id", "user_id", "item_id")
EVENT = {**{name: name for name in IDS}, "time": "ts"}
#: Weights that are far from zero, so that scores tell rows apart.
OPTIONS: dict[str, Any] = {"embedding_dim": 4, "heads": 2, "mlp": [8], "global_dim": 8, "init_std": 0.5}
SHOWN = pa.schema(
    [
        *((name, pa.string()) for name in IDS),
        ("ts", TIMESTAMP),
        ("position", pa.int32()),
        ("device", pa.string()),
        ("bid", pa.float64()),
        ("seen", pa.list_(pa.string())),
        ("clicked", pa.int32()),
    ]
)
CLICKS = pa.schema([*((name, pa.string()) for name in IDS), ("ts", TIMESTAMP)])


@dataclass(frozen=True)
class Shop:
    """The shop's data set and a model of it; ``model`` is a servable folder."""

    folder: Path
    config: DataConfig
    contract: Contract
    model: Path

    @property
    def candidates(self) -> Path:
        """The impressions of the last two days, as nobody has seen them yet."""
        return self.folder / "candidates"


def write_pages(folder: Path, pages: int = 40, days: int = len(DAYS), seed: int = 0) -> None:
    """``impressions/``, ``clicks/``, ``users/`` and ``items.parquet``. Pages show 1 to 9 items; users and items come late, or unknown.

    Args:
        folder: Where to.
        pages: How many a day has.
        days: How many days there are from :data:`FIRST` on.
        seed: Of all that is drawn.
    """
    draw = random.Random(seed)
    for number, day in enumerate(FIRST + dt.timedelta(days=n) for n in range(days)):
        shown: list[dict[str, Any]] = []
        clicks: list[dict[str, Any]] = []
        for page in range(pages):
            moment = dt.datetime.combine(day, dt.time(), dt.timezone.utc) + dt.timedelta(seconds=draw.randint(0, 80_000))
            user = (
                f"u{draw.randint(0, 7)}" if draw.random() < 0.9 else f"new-{day}-{page} \u00e9"
            )  # without a history or a profile
            device = draw.choice(["phone", "desktop", None])
            seen = [f"i{draw.randint(0, 24)}" for _ in range(draw.randint(0, 7))]
            for position in range(draw.choice([1, 1, 2, 3, 4, 9])):
                row = {
                    "impression_id": f"{day}-{page}-{position}",
                    "user_id": user,
                    "item_id": f"i{draw.randint(0, 19 + 10 * (number == days - 1))}",  # the last day has new ones
                    "ts": moment,
                    "position": position,
                    "device": device,
                    "bid": draw.choice([None, draw.random() * 10]),
                    "seen": seen[draw.randint(0, 1) :],  # not the same for all of a page
                    "clicked": int(draw.random() < 0.3),
                }
                shown.append(row)
                if row["clicked"]:
                    clicks.append({name: row[name] for name in IDS} | {"ts": moment + dt.timedelta(seconds=9)})
        write_day(folder / "impressions", day, shown, SHOWN)
        write_day(folder / "clicks", day, clicks, CLICKS)
        users = [{"user_id": f"u{n}", "age": f"a{(n + number) % 3}"} for n in range(6)]
        write_day(folder / "users", day, users, pa.schema([("user_id", pa.string()), ("age", pa.string())]))
    items = pa.table({"item_id": [f"i{n}" for n in range(25)], "category": [f"c{n % 5}" for n in range(25)]})
    pq.write_table(items, folder / "items.parquet")


def shop_config(folder: Path, kind: str = "clicks", **changes: Any) -> DataConfig:
    """The configuration of such logs.

    Args:
        folder: Where they are.
        kind: Where behaviors come from: ``clicks``, ``labels`` (the positives of the impressions), or ``lists`` (recorded histories).
        changes: Replace top-level keys.
    """
    shown = {**EVENT, "position": "position", "device": "device", "bid": "bid"}
    impressions = {"path": str(folder / "impressions"), "columns": shown, "day_column": "day"}
    clicks = {"path": str(folder / "clicks"), "columns": EVENT, "day_column": "day"}
    log: dict[str, Any] = {"kind": "impressions_and_clicks", "impressions": impressions, "clicks": clicks}
    if kind == "lists":
        log["behaviors"] = {"from": "impressions", "items": "seen", "most_recent": "last"}
    if kind == "labels":
        labeled = impressions | {"columns": shown | {"label": "clicked"}}
        log = {"kind": "labeled", "impressions": labeled, "label_delay_hours": 1}
    gap = {} if kind == "lists" else {"gap": {"kind": "time_gap"}}
    values: dict[str, Any] = {
        "name": "pages",
        "samples": str(folder / f"samples-{kind}"),
        "log": log,
        "items": {"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "category": "category"}},
        "users": {
            "path": str(folder / "users"),
            "day_column": "day",
            "max_age_days": 8,
            "columns": {"user_id": "user_id", "valid_from": "timestamp(day)", "age": "age"},
        },
        "fields": {
            "candidate": {"item_id": {}, "category": {}},
            "behaviors": {"item_id": {}, "category": {}, **gap},
            "user": {"age": {}},
            "context": {
                "position": {},
                "device": {},
                "hour": {"expression": "hour(time)"},
                "bid": {"kind": "numeric", "transform": "log"},
            },
        },
        "history": {"length": 5, "days": 2},
        "splits": {
            "train": {"first": DAYS[0], "last": DAYS[3]},
            "validation": {"first": DAYS[4], "last": DAYS[4]},
            "test": {"first": DAYS[5], "last": DAYS[5]},
        },
        "rows_per_file": 40,
    }
    return DataConfig.model_validate(values | changes)


def build_shop(spark: SparkSession, folder: Path, kind: str = "clicks") -> Shop:
    """Build the samples of logs that are there, and save a model whose weights are drawn."""
    config = shop_config(folder, kind)
    build_samples(spark, config, DAYS[0], DAYS[-1])
    contract = read_contract(config.samples)
    model = make_model(contract, options=OPTIONS)
    servable = write_servable(folder / f"model-{kind}", model, contract, config.samples, options=OPTIONS)
    return Shop(folder, config, contract, servable)


def write_candidates(folder: Path, days: Iterable[dt.date] = DAYS[-2:]) -> None:
    """``candidates/``: the impressions of some days without what is known of them only later."""
    for day in days:
        target = folder / "candidates" / f"day={day}"
        target.mkdir(parents=True)
        shown = pq.read_table(folder / "impressions" / f"day={day}" / "part-0.parquet", partitioning=None)
        pq.write_table(shown.drop(["clicked"]), target / "part-0.parquet")
