"""Positives that were delivered twice, or whose ids look like those of drawn negatives, and ids that begin anew."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.config import DataConfig
from pipeline.logs.events import EventLogs
from tests.support.joined import join
from tests.support.small_logs import CLICKS, DAYS, EVENT

pytestmark = pytest.mark.spark

FIRST, SECOND = DAYS[0], DAYS[1]
NEGATIVES = 4
Row = dict[str, Any]


def purchases(day: dt.date) -> list[Row]:
    """40 purchases of a day, each of another user."""
    noon = dt.datetime.combine(day, dt.time(12), dt.timezone.utc)
    return [
        {"impression_id": f"p{n}", "user_id": f"u{n}", "item_id": f"i{n % 20}", "ts": noon + dt.timedelta(minutes=n)}
        for n in range(40)
    ]


def config(folder: Path, rows: list[Row]) -> DataConfig:
    pq.write_table(pa.Table.from_pylist(rows, CLICKS), folder / "purchases.parquet")
    return DataConfig.model_validate(
        {
            "name": "shop",
            "samples": str(folder / "samples"),
            "log": {
                "kind": "positives_only",
                "impressions": {"path": str(folder / "purchases.parquet"), "columns": EVENT},
                "negatives": {"uniform": NEGATIVES},
            },
            "fields": {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}}},
            "history": {"length": 5, "days": 5},
            "splits": {"train": {"first": FIRST, "last": SECOND}},
        }
    )


def test_two_deliveries_of_a_positive_are_one_duplicate(spark: SparkSession, tmp_path: Path) -> None:
    rows = [*purchases(FIRST), *purchases(SECOND)]
    later = {**rows[45], "ts": rows[45]["ts"] + dt.timedelta(hours=1)}
    drawn = EventLogs(spark, config(tmp_path, [*rows, rows[41], later])).read(SECOND, SECOND).impressions.collect()
    counts = Counter(row["impression_id"].partition("#")[0] for row in drawn)
    assert counts["p1"] == counts["p5"] == NEGATIVES + 2
    assert set(counts.values()) == {NEGATIVES + 1, NEGATIVES + 2}
    # the first delivery in time is the one that counts, and the one whose negatives are drawn
    negatives = [row["time"] for row in drawn if row["impression_id"].startswith("p5#")]
    assert set(negatives) == {rows[45]["ts"].replace(tzinfo=None)}


def test_an_id_that_looks_like_a_negative_s_is_another_one(spark: SparkSession, tmp_path: Path) -> None:
    rows = [*purchases(FIRST), *purchases(SECOND)]
    for row in (rows[0], rows[40]):
        row["impression_id"] = "p1#1"
        row["user_id"] = "u1"
    samples, _ = join(spark, config(tmp_path, rows), FIRST, SECOND)
    second_day = [s for s in samples if s["day"] == SECOND]
    assert sum(s["label"] for s in second_day) == 40
    keys = Counter((s["user_key"], s["impression_id"]) for s in second_day)
    assert max(keys.values()) == 1
    assert len(second_day) == 40 * (1 + NEGATIVES)
    assert {s["impression_id"]: s["label"] for s in second_day}["p1#1"] == 1


def test_equal_ids_of_two_users_and_days_draw_other_negatives(spark: SparkSession, tmp_path: Path) -> None:
    rows = [{**row, "impression_id": "p"} for day in (FIRST, SECOND) for row in purchases(day)]
    samples, _ = join(spark, config(tmp_path, rows), SECOND, SECOND)
    drawn: dict[int, tuple[str, ...]] = {}
    for sample in sorted(samples, key=lambda s: str(s["impression_id"])):
        if sample["label"] == 0:
            drawn[sample["user_key"]] = (*drawn.get(sample["user_key"], ()), sample["candidate_item_id"])
    assert len(set(drawn.values())) > 30
