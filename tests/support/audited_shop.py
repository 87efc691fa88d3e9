"""Small logs with all that an audit looks at: late clicks, profiles that change every day, and items that only the test days have."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import DataConfig
from tests.support import small_logs
from tests.support.small_logs import CLICKS, DAYS, EVENT, TIMESTAMP

SPLITS = {
    "train": {"first": str(DAYS[0]), "last": str(DAYS[3])},
    "validation": {"first": str(DAYS[4]), "last": str(DAYS[4])},
    "test": {"first": str(DAYS[5]), "last": str(DAYS[5])},
}


def write_logs(folder: Path) -> None:
    """The logs of :mod:`tests.support.small_logs`, some clicks 30 hours after their impressions, and ``users.parquet``."""
    small_logs.write_logs(folder)
    rows = pq.read_table(folder / "impressions" / f"day={DAYS[1]}" / "part-0.parquet").to_pylist()
    late = [row for row in rows if not row["clicked"]][:8]
    by_day: dict[dt.date, list[dict[str, Any]]] = {}
    for row in late:
        moment = row["ts"] + dt.timedelta(hours=30)
        by_day.setdefault(moment.date(), []).append(
            {**{k: row[k] for k in ("impression_id", "user_id", "item_id")}, "ts": moment}
        )
    for day, clicks in by_day.items():
        pq.write_table(pa.Table.from_pylist(clicks, CLICKS), folder / "clicks" / f"day={day}" / "part-1.parquet")
    draw = random.Random(1)
    users = [
        {"user_id": f"u{n}", "ts": dt.datetime.combine(day, dt.time(), dt.timezone.utc), "mood": draw.choice("abcdefgh")}
        for day in [DAYS[0] - dt.timedelta(days=1), *DAYS]
        for n in range(7)  # nothing is known of u7
    ]
    schema = pa.schema([("user_id", pa.string()), ("ts", TIMESTAMP), ("mood", pa.string())])
    pq.write_table(pa.Table.from_pylist(users, schema), folder / "users.parquet")


def config(folder: Path, samples: Path, **changes: Any) -> dict[str, Any]:
    """The configuration of such logs as a YAML file would say it; ``changes`` replace top-level keys."""
    values = small_logs.config(folder).model_dump(mode="json", by_alias=True, exclude_unset=True)
    values["users"] = {
        "path": str(folder / "users.parquet"),
        "columns": {"user_id": "user_id", "valid_from": "ts", "mood": "mood"},
    }
    values["fields"]["user"]["mood"] = {}
    values["fields"]["behaviors"]["gap"] = {"kind": "time_gap"}
    values["sampling"] = {"negatives": 0.7, "splits": ["train"]}
    values["splits"] = SPLITS
    return values | {"samples": str(samples), "rows_per_file": 100, "examples_per_day": 0} | changes


def data_config(folder: Path, samples: Path, **changes: Any) -> DataConfig:
    return DataConfig.model_validate(config(folder, samples, **changes))


def log(folder: Path, **changes: Any) -> dict[str, Any]:
    """The part ``log`` with some keys replaced."""
    return {**config(folder, folder)["log"], **changes}


def clicks_an_hour_early(folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "clicks"), "columns": {**EVENT, "time": "ts - INTERVAL 1 HOUR"}}


def users_a_day_early(folder: Path) -> dict[str, Any]:
    columns = {"user_id": "user_id", "valid_from": "ts - INTERVAL 1 DAY", "mood": "mood"}
    return {"path": str(folder / "users.parquet"), "columns": columns}
