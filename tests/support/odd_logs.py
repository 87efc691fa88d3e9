"""Logs with all that serving meets: long and empty histories, unknown ids, missing values, ids beyond 64 bits, letters of any script."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HISTORY = 300
FIRST_DAY = dt.date(2026, 1, 1)
#: Vocabularies are made of the first days, and the last ones are scored.
TRAIN_DAYS, TEST_DAYS = 3, 2
CANDIDATES = 8
USERS = [*(f"u{number}" for number in range(30)), "Ürsula", "用户", "9223372036854775808", "a b\t'\"\\", "newcomer"]
ITEMS = [*(f"i{number}" for number in range(120)), "Gemüse", "日本", "9223372036854775808", "-1", "1e400", "null"]
NEW_ITEMS = ["late 1", "late 2"]  # first seen on the days that are scored
CONFIG = """
name: odd
samples: samples
log:
  kind: impressions_and_clicks
  impressions:
    path: logs/impressions
    columns: {impression_id: impression_id, user_id: user_id, item_id: item_id, time: time, device: device, position: position}
  clicks:
    path: logs/clicks
    columns: {impression_id: impression_id, user_id: user_id, item_id: item_id, time: time}
  attribution_hours: 24
  complete_to: 2026-01-07
items:
  path: logs/items
  columns: {item_id: item_id, category: category, price: price}
users:
  path: logs/users
  columns: {user_id: user_id, valid_from: valid_from, age: age, visits: visits}
fields:
  candidate: {item_id: {}, category: {}, price: {kind: numeric, transform: log}}
  behaviors: {item_id: {}, category: {}, gap: {kind: time_gap}}
  user: {age: {}, visits: {kind: numeric}}
  context: {position: {}, device: {}, hour: {expression: hour(time)}}
history: {length: 300, days: 29}
splits:
  train: {first: 2026-01-01, last: 2026-01-03}
  test: {first: 2026-01-04, last: 2026-01-05}
examples_per_day: 1000000
"""


def write_odd_logs(folder: Path, rows: int, seed: int = 0) -> Path:
    """Write logs and the data set's configuration.

    Args:
        folder: where to.
        rows: impressions of the days that are scored, about; the days before have half as many.
        seed: of all that is drawn.

    Returns:
        The configuration's path.
    """
    random = np.random.default_rng(seed)
    impressions: list[dict[str, Any]] = []
    sessions = rows // CANDIDATES
    for number in range(sessions + sessions // 2):
        is_test = number < sessions
        day = FIRST_DAY + dt.timedelta(
            days=int(TRAIN_DAYS + random.integers(TEST_DAYS) if is_test else random.integers(TRAIN_DAYS))
        )
        time = dt.datetime.combine(day, dt.time()) + dt.timedelta(microseconds=int(random.integers(86_400_000_000)))
        user = USERS[random.integers(len(USERS))] if is_test else USERS[random.integers(len(USERS) - 1)]
        device = [None, "phone", "Ταμπλέτα", "tv"][random.integers(4)]
        for position in range(CANDIDATES):
            items = ITEMS + NEW_ITEMS if is_test else ITEMS
            impressions.append(
                {
                    "impression_id": f"{number}-{position}",
                    "user_id": user,
                    "item_id": items[random.integers(len(items))],
                    "time": time,
                    "device": device,
                    "position": position + 1,
                }
            )
    clicks = [
        {
            "impression_id": row["impression_id"],
            "user_id": row["user_id"],
            "item_id": row["item_id"],
            "time": row["time"] + _seconds(9),
        }
        for row in impressions
        if random.random() < 0.2
    ]
    start = dt.datetime.combine(FIRST_DAY, dt.time())
    for number, user in enumerate(USERS[:-1]):  # histories of none to more than are kept
        length = [0, 1, 5, 40, HISTORY, HISTORY + 100][number % 6]
        clicks += [
            {
                "impression_id": f"old {number} {place}",
                "user_id": user,
                "item_id": ITEMS[random.integers(len(ITEMS))],
                "time": start - _seconds(int(random.integers(1, 20 * 86_400))),
            }
            for place in range(length)
        ]
    items = [
        {
            "item_id": item,
            "category": None if random.random() < 0.2 else f"Kategorie ü{random.integers(9)}",
            "price": [None, float("nan"), 0.0, 1e300, *np.exp(random.normal(2, 1, 6)).tolist()][random.integers(10)],
        }
        for item in [*ITEMS, *NEW_ITEMS]
    ]
    users = [
        {
            "user_id": user,
            "valid_from": start - _seconds(86_400),
            "age": None if number % 5 == 0 else f"{number % 4}0s",
            "visits": None if number % 7 == 0 else float(number),
        }
        for number, user in enumerate(USERS[:-1])
    ]
    for name, table in {"impressions": impressions, "clicks": clicks, "items": items, "users": users}.items():
        (folder / "logs" / name).mkdir(parents=True)
        pq.write_table(_table(table), folder / "logs" / name / "part.parquet")
    (folder / "odd.yaml").write_text(CONFIG, encoding="utf-8")
    return folder / "odd.yaml"


def _seconds(count: int) -> dt.timedelta:
    return dt.timedelta(seconds=count)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """With times in UTC, as Spark reads them wherever it runs."""
    table = pa.Table.from_pylist(rows)
    for name in ("time", "valid_from"):
        if name in table.column_names:
            times = table[name].cast(pa.timestamp("us", "UTC"))
            table = table.set_column(table.column_names.index(name), name, times)
    return table
