"""A shop whose pages show several items to a user at one moment: logs, samples, a model, and candidates without labels."""

from __future__ import annotations

import datetime as dt
import random
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
        """The test day's impressions, as nobody has seen them yet."""
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
            for position in range(draw.choice([1, 1, 2, 3, 4, 9])):
                row = {
                    "impression_id": f"{day}-{page}-{position}",
                    "user_id": user,
                    "item_id": f"i{draw.randint(0, 19 + 10 * (number == days - 1))}",  # the last day has new ones
                    "ts": moment,
                    "position": position,
                    "device": device,
                    "bid": draw.choice([None, draw.random() * 10]),
                }
                shown.append(row)
                if draw.random() < 0.3:
                    clicks.append({name: row[name] for name in IDS} | {"ts": moment + dt.timedelta(seconds=9)})
        write_day(folder / "impressions", day, shown, SHOWN)
        write_day(folder / "clicks", day, clicks, CLICKS)
        users = [{"user_id": f"u{n}", "age": f"a{(n + number) % 3}"} for n in range(6)]
        write_day(folder / "users", day, users, pa.schema([("user_id", pa.string()), ("age", pa.string())]))
    items = pa.table({"item_id": [f"i{n}" for n in range(25)], "category": [f"c{n % 5}" for n in range(25)]})
    pq.write_table(items, folder / "items.parquet")


def shop_config(folder: Path, **changes: Any) -> DataConfig:
    """The configuration of such logs; ``changes`` replace top-level keys."""
    shown = {**EVENT, "position": "position", "device": "device", "bid": "bid"}
    values: dict[str, Any] = {
        "name": "pages",
        "samples": str(folder / "samples"),
        "log": {
            "kind": "impressions_and_clicks",
            "impressions": {"path": str(folder / "impressions"), "columns": shown, "day_column": "day"},
            "clicks": {"path": str(folder / "clicks"), "columns": EVENT, "day_column": "day"},
        },
        "items": {"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "category": "category"}},
        "users": {
            "path": str(folder / "users"),
            "day_column": "day",
            "max_age_days": 8,
            "columns": {"user_id": "user_id", "valid_from": "timestamp(day)", "age": "age"},
        },
        "fields": {
            "candidate": {"item_id": {}, "category": {}},
            "behaviors": {"item_id": {}, "category": {}, "gap": {"kind": "time_gap"}},
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


def build_shop(spark: SparkSession, folder: Path) -> Shop:
    """Write logs, build their samples, and save a model whose weights are drawn."""
    write_pages(folder)
    config = shop_config(folder)
    build_samples(spark, config, DAYS[0], DAYS[-1])
    contract = read_contract(config.samples)
    model = write_servable(folder / "model", make_model(contract, options=OPTIONS), contract, config.samples, options=OPTIONS)
    for day in DAYS[-2:]:
        target = folder / "candidates" / f"day={day}"
        target.mkdir(parents=True)
        (target / "part-0.parquet").write_bytes((folder / "impressions" / f"day={day}" / "part-0.parquet").read_bytes())
    return Shop(folder, config, contract, model)
