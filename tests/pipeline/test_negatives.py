from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession

from pipeline.config import DataConfig, Negatives
from pipeline.events import EventLogs
from tests.pipeline.small_logs import EVENT, TIMESTAMP

pytestmark = pytest.mark.spark

FIRST = dt.date(2026, 3, 1)
DAYS = 24
WINDOW = 10
UNIFORM, POPULARITY = 3, 3


def purchases() -> list[dict[str, object]]:
    """A popular item has half of all purchases of its day; some items are sold for some days only."""
    draw = random.Random(0)
    rows = []
    for day in range(DAYS):
        on_sale = [n for n in range(40) if n % 4 == 0 or (day // 8) == n % 3]
        for n in range(60):
            item = 0 if draw.random() < 0.3 else draw.choice(on_sale)
            moment = dt.datetime.combine(FIRST, dt.time(), dt.timezone.utc) + dt.timedelta(
                days=day, seconds=draw.randint(0, 86_399)
            )
            rows.append(
                {"impression_id": f"{day}-{n}", "user_id": f"u{draw.randint(0, 300)}", "item_id": f"i{item}", "ts": moment}
            )
    return rows


def config(folder: Path, seed: int = 0) -> DataConfig:
    return DataConfig.model_validate(
        {
            "name": "shop",
            "samples": str(folder / "samples"),
            "log": {
                "kind": "positives_only",
                "impressions": {"path": str(folder / "purchases.parquet"), "columns": EVENT},
                "negatives": {"uniform": UNIFORM, "popularity": POPULARITY},
            },
            "fields": {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}}},
            "history": {"length": 30, "days": WINDOW},
            "splits": {"train": {"first": FIRST, "last": FIRST}},
            "seed": seed,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    schema = pa.schema([("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", TIMESTAMP)])
    pq.write_table(pa.Table.from_pylist(purchases(), schema), folder / "purchases.parquet")
    return folder


def drawn(spark: SparkSession, settings: DataConfig, first: int = 0, last: int = DAYS - 1) -> list[Row]:
    events = EventLogs(spark, settings).read(FIRST + dt.timedelta(days=first), FIRST + dt.timedelta(days=last))
    return events.impressions.orderBy("impression_id").collect()


@pytest.fixture(scope="module")
def rows(spark: SparkSession, folder: Path) -> list[Row]:
    return drawn(spark, config(folder))


def test_every_purchase_is_a_positive_and_has_its_negatives(rows: list[Row]) -> None:
    positives = {row["impression_id"]: row for row in rows if row["label"] == 1}
    assert len(positives) == len(purchases())
    counts = Counter(row["impression_id"].split("#")[0] for row in rows if row["label"] == 0)
    assert set(counts.values()) == {UNIFORM + POPULARITY}
    assert set(counts) == set(positives)
    for row in rows:
        positive = positives[row["impression_id"].split("#")[0]]
        assert (row["user_id"], row["time"], row["time"].date()) == (
            positive["user_id"],
            positive["time"],
            positive["time"].date(),
        )


def test_no_negative_is_an_item_that_the_user_bought_in_the_window(rows: list[Row]) -> None:
    bought = [(p["user_id"], p["item_id"], p["ts"].replace(tzinfo=None)) for p in purchases()]
    for row in rows:
        if row["label"] == 0:
            begin = row["time"] - dt.timedelta(days=WINDOW)
            assert not any(u == row["user_id"] and i == row["item_id"] and begin <= t <= row["time"] for u, i, t in bought)


def test_negatives_of_a_positive_differ_and_were_sold_in_the_week_that_ends_with_its_day(rows: list[Row]) -> None:
    sold: dict[str, set[dt.date]] = {}
    for purchase in purchases():
        sold.setdefault(purchase["item_id"], set()).add(purchase["ts"].date())
    chosen: dict[str, list[str]] = {}
    for row in rows:
        if row["label"] == 0:
            assert any(row["time"].date() - dt.timedelta(days=6) <= day <= row["time"].date() for day in sold[row["item_id"]])
            chosen.setdefault(row["impression_id"].split("#")[0], []).append(row["item_id"])
    assert all(len(items) == len(set(items)) for items in chosen.values())


def test_popularity_draws_the_popular_and_uniform_does_not(rows: list[Row]) -> None:
    def share(slots: range) -> float:
        kind = [r for r in rows if r["label"] == 0 and int(r["impression_id"].split("#")[1]) in slots]
        return sum(r["item_id"] == "i0" for r in kind) / len(kind)

    # a third of the purchases, one of some twenty items; buyers of it in the window do not get it
    assert share(range(1, UNIFORM + 1)) < 0.06
    assert share(range(UNIFORM + 1, UNIFORM + POPULARITY + 1)) > 0.08


def test_draws_do_not_depend_on_which_days_are_built_together(spark: SparkSession, folder: Path, rows: list[Row]) -> None:
    alone = drawn(spark, config(folder), 15, 15)
    assert alone == [row for row in rows if row["time"].date() == FIRST + dt.timedelta(days=15)]


def test_another_seed_draws_others(spark: SparkSession, folder: Path, rows: list[Row]) -> None:
    other = drawn(spark, config(folder, seed=1), 15, 15)
    assert [r["item_id"] for r in other] != [r["item_id"] for r in rows if r["time"].date() == FIRST + dt.timedelta(days=15)]


def test_where_the_pool_is_too_small_there_are_fewer(spark: SparkSession, tmp_path: Path) -> None:
    moment = dt.datetime(2026, 3, 1, 12, tzinfo=dt.timezone.utc)
    rows = [{"impression_id": f"p{n}", "user_id": f"u{n}", "item_id": f"i{n}", "ts": moment} for n in range(3)]
    schema = pa.schema([("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", TIMESTAMP)])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "purchases.parquet")
    found = drawn(spark, config(tmp_path), 0, 0)
    assert Counter(row["label"] for row in found) == {1: 3, 0: 6}


def test_at_least_one_negative_is_asked_for() -> None:
    with pytest.raises(ValueError, match="say how many"):
        Negatives.model_validate({})
