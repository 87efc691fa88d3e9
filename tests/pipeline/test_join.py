"""The join of the Spark job against the brute force, row for row, on generated worlds."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.config import DataConfig
from pipeline.contract import Encoder, Field, History
from pipeline.contract.document import GROUPS
from pipeline.encode import encoded_samples, raw_samples
from pipeline.events import read_events
from pipeline.samples import behavior_columns, impression_columns
from tests.pipeline import oracle

WORLDS = 200
LENGTH = 4
DAYS = 29
ATTRIBUTION = dt.timedelta(hours=24)
FIRST = dt.date(2026, 1, 1)
LAST = dt.date(2026, 2, 9)
ITEMS = [f"i{n}" for n in range(6)]

pytestmark = pytest.mark.spark


class World:
    """A few users on a coarse clock, so that events tie; with duplicates, orphans, late and early clicks, changing profiles."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        users = [f"w{number}-u{n}" for n in range(draw.randint(1, 4))]
        step = draw.choice([1, 60, 3600, 86_400, 7 * 86_400])
        span = int((LAST - FIRST).days * 86_400 / step)

        def moment() -> dt.datetime:
            seconds = draw.randint(0, min(span, draw.choice([5, 50, span]))) * step
            return dt.datetime(2026, 1, 1) + dt.timedelta(seconds=min(seconds, (LAST - FIRST).days * 86_400))

        self.impressions = []
        self.clicks = []
        for n in range(draw.randint(1, 30)):
            shown = oracle.Impression(moment(), f"w{number}-p{n}", draw.choice(users), draw.choice(ITEMS), draw.choice("ab"))
            self.impressions.append(shown)
            if draw.random() < 0.1:
                self.impressions.append(shown)
            if draw.random() < 0.6:
                late = dt.timedelta(seconds=draw.choice([0, 0, 1, step, 86_399, 86_400, 86_401, 40 * 86_400, -1, -step]))
                click = oracle.Click(shown.time + late, shown.item_id, shown.impression_id, shown.user_id)
                self.clicks += [click] * draw.choice([1, 1, 1, 2])
        for n in range(draw.randint(0, 10)):
            self.clicks.append(oracle.Click(moment(), draw.choice(ITEMS), f"w{number}-orphan{n}", draw.choice(users)))
        self.snapshots = [
            oracle.Snapshot(user, moment(), draw.choice(["20", "30", "40"])) for user in users for _ in range(draw.randint(0, 3))
        ]
        self.categories = {item: f"c{int(item[1:]) % 3}" for item in ITEMS[: draw.randint(3, 6)]}


def config(folder: Path) -> DataConfig:
    event = {"impression_id": "impression_id", "user_id": "user_id", "item_id": "item_id", "time": "time"}
    return DataConfig.model_validate(
        {
            "name": "worlds",
            "samples": str(folder / "samples"),
            "log": {
                "kind": "impressions_and_clicks",
                "impressions": {"path": str(folder / "impressions.parquet"), "columns": {**event, "device": "device"}},
                "clicks": {"path": str(folder / "clicks.parquet"), "columns": event},
            },
            "users": {
                "path": str(folder / "users.parquet"),
                "columns": {"user_id": "user_id", "valid_from": "valid_from", "age": "age"},
            },
            "items": {"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "category": "category"}},
            "fields": {
                "candidate": {"item_id": {}, "category": {}},
                "behaviors": {"item_id": {}, "category": {}},
                "user": {"age": {}},
                "context": {"device": {}},
            },
            "history": {"length": LENGTH, "days": DAYS},
            "splits": {"train": {"first": FIRST, "last": LAST}},
        }
    )


def write(path: Path, rows: list[object], columns: list[str]) -> None:
    kinds = {"time": pa.timestamp("us", tz="UTC"), "valid_from": pa.timestamp("us", tz="UTC")}
    table = {c: pa.array([getattr(row, c) for row in rows], kinds.get(c, pa.string())) for c in columns}
    pq.write_table(pa.table(table), path)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [World(number) for number in range(WORLDS)]


@pytest.fixture(scope="module")
def expected(worlds: list[World]) -> dict[str, oracle.Sample]:
    rows: dict[str, oracle.Sample] = {}
    for world in worlds:
        rows |= oracle.samples(
            world.impressions,
            world.clicks,
            world.snapshots,
            worlds[0].categories,  # one table of items for all
            attribution=ATTRIBUTION,
            window=dt.timedelta(days=DAYS),
            length=LENGTH,
        )
    return rows


@pytest.fixture(scope="module")
def settings(worlds: list[World], tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("worlds")
    event = ["impression_id", "user_id", "item_id", "time"]
    write(folder / "impressions.parquet", [i for w in worlds for i in w.impressions], [*event, "device"])
    write(folder / "clicks.parquet", [c for w in worlds for c in w.clicks], event)
    write(folder / "users.parquet", [s for w in worlds for s in w.snapshots], ["user_id", "valid_from", "age"])
    categories = worlds[0].categories
    pq.write_table(pa.table({"item_id": list(categories), "category": list(categories.values())}), folder / "items.parquet")
    return config(folder)


@pytest.fixture(scope="module")
def parts(spark: SparkSession, settings: DataConfig, worlds: list[World]):
    days = {i.time.date() for w in worlds for i in w.impressions}
    every = {FIRST + dt.timedelta(days=n) for n in range((LAST - FIRST).days + 1)}
    settings = settings.model_copy(update={"log": settings.log.model_copy(update={"empty_days": sorted(every - days)})})
    events = read_events(spark, settings, FIRST, LAST)
    return impression_columns(spark, settings, events), behavior_columns(spark, settings, events)


FIELDS = tuple(
    Field(group=group, name=name, vocabulary=name)
    for group in GROUPS
    for name in {
        "candidate": ["item_id", "category"],
        "behaviors": ["item_id", "category"],
        "user": ["age"],
        "context": ["device"],
    }[group]
)
VOCABULARIES = {
    "item_id": pa.array(ITEMS[:4]),  # i4 and i5 are unknown
    "category": pa.array(["c0", "c1", "c2"]),
    "age": pa.array(["20", "30", "40"]),
    "device": pa.array(["a", "b"]),
}


def test_every_row_equals_the_brute_force(parts, expected: dict[str, oracle.Sample]) -> None:
    raw = raw_samples(*parts, FIELDS, History(length=LENGTH, days=DAYS), rows=len(expected)).collect()
    assert len(raw) == len(expected)
    assert len({row["impression_id"] for row in raw}) == len(expected)
    found = {
        row["impression_id"]: oracle.Sample(
            **{
                name: tuple(row[name]) if name.startswith("behavior_") else row[name]
                for name in oracle.Sample.__dataclass_fields__
            }
        )
        for row in raw
    }
    assert found == expected
    # the worlds are not trivial: histories of all lengths, both labels, ties, absent profiles and items
    assert {len(sample.behavior_item_id) for sample in expected.values()} == set(range(LENGTH + 1))
    assert {sample.label for sample in expected.values()} == {0, 1}
    assert {sample.user_age for sample in expected.values()} >= {None, "20"}
    assert None in {sample.candidate_category for sample in expected.values()}


def test_no_click_at_or_after_the_impression_is_in_a_history(parts, worlds: list[World]) -> None:
    raw = raw_samples(*parts, FIELDS, History(length=10_000, days=DAYS), rows=1000).collect()
    earlier = {}
    for world in worlds:
        for shown in world.impressions:
            earlier[shown.impression_id] = sum(
                c.user_id == shown.user_id and shown.time - dt.timedelta(days=DAYS) <= c.time < shown.time
                for c in set(world.clicks)
            )
    assert {row["impression_id"]: len(row["behavior_item_id"]) for row in raw} == earlier


def test_encoded_rows_are_the_raw_rows_encoded_and_padded(spark: SparkSession, parts, expected: dict[str, oracle.Sample]) -> None:
    broadcast = spark.sparkContext.broadcast(VOCABULARIES)
    rows = encoded_samples(*parts, FIELDS, History(length=LENGTH, days=DAYS), broadcast, rows=len(expected)).collect()
    encoder = Encoder(VOCABULARIES)
    assert len(rows) == len(expected)
    for row in rows:
        sample = expected[row["impression_id"]]
        assert row["label"] == sample.label
        assert row["behavior_length"] == len(sample.behavior_item_id)
        for field in FIELDS:
            value = getattr(sample, field.column)
            if field.group == "behaviors":
                ids = encoder.encode(field, pa.array(value, pa.string()))
                np.testing.assert_array_equal(row[field.column], np.pad(ids, (0, LENGTH - len(ids))))
            else:
                assert row[field.column] == encoder.encode(field, pa.array([value], pa.string()))[0]
