"""What changes a day's samples makes the day stale, whatever a table looks like; what does not, does not."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import ContractError, read_contract
from pipeline.build import build_samples, plan_build
from pipeline.config import DataConfig
from pipeline.dataset.inputs import find_inputs
from tests.support.small_logs import CLICKS, DAYS, EVENT, TIMESTAMP, config, write_logs

pytestmark = pytest.mark.spark

SCHEMA = pa.schema(
    [*[(name, pa.string()) for name in ("impression_id", "user_id", "item_id")], ("ts", TIMESTAMP), ("clicked", pa.int32())]
)
EARLY = DAYS[:4]


def rows(day: dt.date, count: int = 4, tag: str = "") -> list[dict[str, Any]]:
    noon = dt.datetime.combine(day, dt.time(12), dt.timezone.utc)
    return [
        {
            "impression_id": f"{day}-{tag}{n}",
            "user_id": f"u{n % 2}",
            "item_id": f"i{n}",
            "ts": noon + dt.timedelta(minutes=n),
            "clicked": n % 2,
        }
        for n in range(count)
    ]


def write(folder: Path, values: list[dict[str, Any]], name: str = "a.parquet") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(values, SCHEMA), folder / name)


def labeled(folder: Path, **source: Any) -> DataConfig:
    impressions = {"columns": {**EVENT, "label": "clicked"}, **source}
    log = {"kind": "labeled", "empty_days": "any", "label_delay_hours": 0, "impressions": impressions}
    fields = {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}}}
    splits = {"train": {"first": DAYS[0], "last": DAYS[1]}, "test": {"first": DAYS[2], "last": DAYS[3]}}
    return config(folder, log=log, fields=fields, items=None, splits=splits, history={"length": 5, "days": 1})


def changed(spark: SparkSession, settings: DataConfig, change: Callable[[], object]) -> list[dt.date]:
    """The days whose inputs a change changes."""
    before = find_inputs(spark, settings, EARLY).fingerprints
    assert find_inputs(spark, settings, EARLY).fingerprints == before
    change()
    after = find_inputs(spark, settings, EARLY).fingerprints
    return [day for day in EARLY if before[day] != after[day]]


def test_late_rows_in_partitions_of_arrival(spark: SparkSession, tmp_path: Path) -> None:
    for day in EARLY:
        write(tmp_path / "log" / f"dt={day}", rows(day))
    settings = labeled(tmp_path, path=str(tmp_path / "log"))
    late = tmp_path / "log" / f"dt={DAYS[3]}"
    # rows of the first day, which are history of the second
    assert changed(spark, settings, lambda: write(late, rows(DAYS[0], 2, "late"), "late.parquet")) == DAYS[:2]


def test_a_date_in_a_folder_above_the_log_is_no_partition(spark: SparkSession, tmp_path: Path) -> None:
    log = tmp_path / f"export={DAYS[3]}" / f"day={DAYS[3]}" / "log"
    for day in EARLY:
        write(log / f"day={day}", rows(day))
    settings = labeled(tmp_path, path=str(log), day_column="day")
    assert changed(spark, settings, lambda: write(log / f"day={DAYS[0]}", rows(DAYS[0], 2, "new"), "b.parquet")) == DAYS[:2]


def test_rows_of_a_view(spark: SparkSession, tmp_path: Path) -> None:
    def make(more: int) -> None:
        values = [row for day in EARLY for row in rows(day, 4 + more * (day == DAYS[2]))]
        spark.createDataFrame(pa.Table.from_pylist(values, SCHEMA)).createOrReplaceTempView("impressions_of_inputs")

    make(0)
    settings = labeled(tmp_path, table="impressions_of_inputs")
    assert changed(spark, settings, lambda: make(1)) == DAYS[2:4]
    assert changed(spark, settings, lambda: make(1)) == []


def test_a_view_that_says_something_else_of_the_same_files(spark: SparkSession, tmp_path: Path) -> None:
    for day in EARLY:
        write(tmp_path / "log" / f"day={day}", rows(day))
    spark.read.parquet(str(tmp_path / "log")).createOrReplaceTempView("files_of_inputs")

    def view(where: str) -> None:
        spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW view_of_inputs AS SELECT * FROM files_of_inputs WHERE {where}")

    view("true")
    settings = labeled(tmp_path, table="view_of_inputs")
    assert changed(spark, settings, lambda: view(f"date(ts) <> '{DAYS[1]}' OR item_id <> 'i0'")) == DAYS[1:3]


def test_attributes_that_are_rows_of_a_view(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)

    def make(category: str) -> None:
        spark.createDataFrame([("i1", category)], "item_id string, category string").createOrReplaceTempView("items_of_inputs")

    make("c1")
    settings = config(tmp_path, items={"table": "items_of_inputs", "columns": {"item_id": "item_id", "category": "category"}})
    assert changed(spark, settings, lambda: make("c2")) == EARLY


@pytest.mark.parametrize("name", ["_temporary/0/part-0.parquet", "_delta_log/0.json", ".hidden/a.parquet", ".a.parquet.crc"])
def test_what_spark_does_not_read_changes_nothing(spark: SparkSession, tmp_path: Path, name: str) -> None:
    write_logs(tmp_path)

    def appear() -> None:
        (tmp_path / "impressions" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "impressions" / name).write_text("half")

    assert changed(spark, config(tmp_path), appear) == []


def test_a_day_that_is_a_link_to_another_disk(spark: SparkSession, tmp_path: Path) -> None:
    for day in EARLY:
        write(tmp_path / "log" / f"day={day}", rows(day))
    (tmp_path / "log" / f"day={DAYS[1]}").rename(tmp_path / "disk")
    (tmp_path / "log" / f"day={DAYS[1]}").symlink_to(tmp_path / "disk")
    (tmp_path / "log" / "around").symlink_to(tmp_path / "log")
    settings = labeled(tmp_path, path=str(tmp_path / "log"), day_column="day")
    assert changed(spark, settings, lambda: write(tmp_path / "disk", rows(DAYS[1], 2, "new"), "b.parquet")) == DAYS[1:3]


def test_another_clock_skew_builds_the_days_anew(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)
    build_samples(spark, config(tmp_path), DAYS[0], DAYS[0])
    (plan,) = plan_build(spark, config(tmp_path, quality={"clock_skew_seconds": 60}), DAYS[0], DAYS[0])
    assert plan.reason == "new generation: the configuration changed (clock_skew_seconds)"
    # what a default says is the same written out, and a threshold makes no sample another
    same = config(tmp_path, quality={"clock_skew_seconds": 300, "max_quarantined": 0.5}, rows_per_pass=1_000, keep_generations=5)
    assert [day.action for day in plan_build(spark, same, DAYS[0], DAYS[0])] == ["keep"]


def test_the_night_after_an_extension_over_a_gap_builds_nothing(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)

    def splits(first: int, last: int) -> dict[str, Any]:
        held_out = {"old_test": {"first": DAYS[2], "last": DAYS[2]}, "test": {"first": DAYS[5], "last": DAYS[5]}}
        return {"train": {"first": DAYS[first], "last": DAYS[last]}, **held_out}

    build_samples(spark, config(tmp_path, splits=splits(0, 1)), DAYS[0], DAYS[2])
    later = config(tmp_path, splits=splits(3, 4))
    contract = build_samples(spark, later, DAYS[2], DAYS[5], extend_vocabularies=True).contract
    assert [(span.first, span.last) for span in contract.vocabulary_days] == [(DAYS[0], DAYS[1]), (DAYS[3], DAYS[4])]
    assert {day.action for day in plan_build(spark, later, DAYS[2], DAYS[5])} == {"keep"}


def test_a_bad_row_that_was_accepted_does_not_refuse_the_next_nights(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)
    path = tmp_path / "clicks" / f"day={DAYS[0]}" / "part-0.parquet"
    clicks = pq.read_table(path, partitioning=None).to_pylist()
    clicks[0]["user_id"] = None
    pq.write_table(pa.Table.from_pylist(clicks, CLICKS), path)
    build_samples(spark, config(tmp_path, quality={"max_quarantined": 0.1}), DAYS[0], DAYS[1])
    # the first day is history of the third, and is held against no threshold again
    assert build_samples(spark, config(tmp_path), DAYS[2], DAYS[2]).built == (DAYS[2],)


@pytest.mark.parametrize("lost", [f"clicks/day={DAYS[3]}", f"impressions/day={DAYS[3]}", f"clicks/day={DAYS[0]}"])
def test_a_day_whose_logs_are_gone_is_kept_as_it_is_published(
    spark: SparkSession, tmp_path: Path, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_logs(tmp_path)
    settings = config(tmp_path)
    before = build_samples(spark, settings, DAYS[0], DAYS[-1]).contract
    shutil.rmtree(tmp_path / lost)
    report = build_samples(spark, settings, DAYS[0], DAYS[-1])
    assert (report.built, report.contract) == ((), before)
    name, _, day = lost.partition("/day=")
    told = [record.getMessage() for record in caplog.records if "are gone" in record.getMessage()]
    assert told and all(f"log.{name} of {day}" in words for words in told)
    planned = [day for day in plan_build(spark, settings, DAYS[0], DAYS[-1]) if day.reason]
    assert planned and all((day.action, day.reason.partition(":")[0]) == ("keep", "gone") for day in planned)
    # a new generation would lack what the published one has
    other = config(tmp_path, seed=1)
    with pytest.raises(ContractError, match=f"log.{name} of {day}.*--drop-days"):
        build_samples(spark, other, DAYS[0], DAYS[-1])
    assert read_contract(settings.samples) == before


def test_a_day_is_built_without_logs_that_are_gone_where_that_is_said(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_logs(tmp_path)
    build_samples(spark, config(tmp_path), DAYS[0], DAYS[-1])
    shutil.rmtree(tmp_path / "clicks" / f"day={DAYS[3]}")
    report = build_samples(spark, config(tmp_path), DAYS[0], DAYS[-1], drop_days=True)
    assert DAYS[3] in report.built
    assert f"{DAYS[3]}: not one click in log.clicks; is the log complete?" in caplog.messages
    (day,) = (day for day in report.contract.days if day.day == DAYS[3])
    assert all(DAYS[3] not in span for span in day.input_days["log.clicks"])
