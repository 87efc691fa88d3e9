"""The YAML files under conf/data/ fit what the importers write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.configuration import load_config
from pipeline.config import DataConfig, FieldConfig, Source
from tests.pipeline.importers.conftest import Imported

ROOT = Path(__file__).resolve().parents[3]
SPLIT_BY_USER = "movielens-100k-users"
CONFIGURATIONS = {
    "amazon-2023": "amazon-2023",
    "amazon-books-2014": "amazon-2014",
    "amazon-electronics-2014": "amazon-2014",
    "dmr": "dmr",
    "kuairand": "kuairand",
    "movielens-100k": "movielens-100k",
    SPLIT_BY_USER: "movielens-100k",
    "movielens-1m": "movielens-1m",
    "movielens-32m": "movielens-32m",
    "taobao-ads": "taobao-ads",
}


def columns(spark: SparkSession, source: Source) -> DataFrame:
    """The columns that a configuration makes of a log; Spark refuses those that cannot be made."""
    assert source.path is not None
    log = spark.read.parquet(source.path)
    assert source.day_column is None or source.day_column in log.columns
    kept = log if source.where is None else log.where(source.where)
    return kept.select(*[F.expr(expression).alias(name) for name, expression in source.columns.items()])


def joined(events: DataFrame, tables: Iterable[tuple[DataFrame | None, str]]) -> DataFrame:
    for table, key in tables:
        if table is not None:
            assert set(table.columns) & set(events.columns) == {key}, "a column of this name is there already"
            events = events.join(table, key, "left")
    return events


def check_fields(frame: DataFrame, fields: dict[str, FieldConfig]) -> None:
    for name, field in fields.items():
        if field.kind != "time_gap":
            kind = frame.select(F.expr(field.expression or f"`{name}`").alias("field")).dtypes[0][1]
            assert (kind in ("int", "bigint", "double")) or field.kind == "categorical", f"{name} is {kind}"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_column_and_field_is_there(spark: SparkSession, imported: Callable[[str], Imported], name: str) -> None:
    logs = imported(CONFIGURATIONS[name])
    config = load_config(DataConfig, str(ROOT / "conf" / "data" / f"{name}.yaml"), [f"logs={logs.folder}"])
    assert config.name == name
    items = columns(spark, config.items) if config.items else None
    users = columns(spark, config.users) if config.users else None
    impressions = columns(spark, config.log.impressions)
    assert impressions.schema["time"].dataType.typeName() == "timestamp"
    if config.log.kind == "labeled":
        assert {row["label"] for row in impressions.select("label").distinct().collect()} == {0, 1}
    known = joined(impressions, [(items, "item_id"), (users, "user_id")])
    for group in (config.fields.candidate, config.fields.user, config.fields.context):
        check_fields(known, group)
    by_action = {action: columns(spark, source) for action, source in config.log.behaviors.items()}
    default = impressions.select("user_id", "item_id", "time")
    for behaviors in by_action.values() or [default]:
        check_fields(joined(behaviors, [(items, "item_id")]).withColumn("action", F.lit("click")), config.fields.behaviors)


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name != SPLIT_BY_USER])
def test_the_splits_lie_within_the_days(imported: Callable[[str], Imported], name: str) -> None:
    logs = imported(CONFIGURATIONS[name])
    config = load_config(DataConfig, str(ROOT / "conf" / "data" / f"{name}.yaml"))
    days = {path.name for path in (logs.folder / "impressions").iterdir()}
    for split in config.splits.values():
        assert {f"day={split.first}", f"day={split.last}"} <= days
    if CONFIGURATIONS[name] in ("amazon-2014", "dmr"):  # days that the importer makes: each has its split
        assert len(days) == sum((split.last - split.first).days + 1 for split in config.splits.values())


def test_a_user_s_ratings_are_all_in_one_split_and_keep_their_hour_and_weekday(spark: SparkSession) -> None:
    config = load_config(DataConfig, str(ROOT / "conf" / "data" / f"{SPLIT_BY_USER}.yaml"))
    users = spark.range(1, 944).select(F.col("id").cast("string").alias("user_id"))
    ends = users.withColumn("time", F.explode(F.expr("array(timestamp'1997-09-20 00:00:00', timestamp'1998-04-22 23:59:59')")))
    moved = ends.withColumn("moved", F.expr(config.log.impressions.columns["time"]))
    assert moved.where("hour(time) != hour(moved) or weekday(time) != weekday(moved)").isEmpty()
    shares = {}
    for name, split in config.splits.items():
        held = moved.where(F.to_date("moved").between(split.first, split.last)).groupBy("user_id").count()
        assert held.where("count != 2").isEmpty()  # both of a user's
        shares[name] = held.count() / 943
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == pytest.approx({"train": 0.64, "validation": 0.08, "test": 0.28}, abs=0.05)
