"""Every log that cannot be used ends with one sentence that says what, where and what to do, and leaves nothing behind."""

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

from pipeline.build import build_samples
from pipeline.config import DataConfig
from pipeline.logs import LogError
from tests.pipeline.small_logs import DAYS, EVENT, config, write_logs

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder, per_day=20)
    return folder


@pytest.fixture
def folder(logs: Path, tmp_path: Path) -> Path:
    shutil.copytree(logs, tmp_path / "logs")
    return tmp_path / "logs"


def refused(spark: SparkSession, settings: DataConfig, *words: str, last: dt.date = DAYS[-1]) -> None:
    with pytest.raises(LogError) as caught:
        build_samples(spark, settings, DAYS[0], last)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    left = [path for path in Path(settings.samples).rglob("*") if path.is_file()] if Path(settings.samples).exists() else []
    assert left == []


def changed(folder: Path, source: str, **changes: Any) -> DataConfig:
    """The configuration with some keys of ``log.impressions`` or ``log.clicks`` replaced."""
    log = config(folder).model_dump(by_alias=True)["log"]
    return config(folder, log={**log, source: {**log[source], **changes}})


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def day_file(folder: Path, log: str, day: int = 1) -> Path:
    return folder / log / f"day={DAYS[day]}" / "part-0.parquet"


def test_a_missing_log_folder(spark: SparkSession, folder: Path) -> None:
    refused(spark, changed(folder, "impressions", path=str(folder / "nowhere")), "log.impressions", "no such path", "nowhere")


def test_a_missing_column(spark: SparkSession, folder: Path) -> None:
    settings = changed(folder, "impressions", columns={**EVENT, "user_id": "member", "device": "device", "bid": "bid"})
    refused(spark, settings, "log.impressions.columns.user_id", "`member`", "the columns there are", "user_id")


def test_a_field_without_a_column(spark: SparkSession, folder: Path) -> None:
    fields = config(folder).model_dump()["fields"]
    fields["context"] = {"weather": {}}
    refused(spark, config(folder, fields=fields), "fields.context.weather", "`weather`", "device")


def test_a_field_of_the_wrong_type(spark: SparkSession, folder: Path) -> None:
    fields = config(folder).model_dump()["fields"]
    fields["context"] = {"device": {"kind": "numeric"}}
    refused(spark, config(folder, fields=fields), "fields.context.device", "string", "try_cast")


def test_a_time_that_is_a_number(spark: SparkSession, folder: Path) -> None:
    settings = changed(folder, "clicks", columns={**EVENT, "time": "unix_millis(ts)"})
    refused(spark, settings, "log.clicks", "bigint", "timestamp_millis")


@pytest.mark.parametrize("expression", ["timestamp_millis(unix_seconds(ts))", "timestamp_seconds(unix_millis(ts))"])
@pytest.mark.parametrize("source", ["impressions", "clicks"])
def test_times_in_the_wrong_unit(spark: SparkSession, folder: Path, source: str, expression: str) -> None:
    columns = config(folder).model_dump()["log"][source]["columns"]
    settings = changed(folder, source, columns={**columns, "time": expression})
    refused(spark, settings, f"log.{source}", "seconds or milliseconds", "years 1990 to 2100")


def test_a_day_without_impressions(spark: SparkSession, folder: Path) -> None:
    shutil.rmtree(folder / "impressions" / f"day={DAYS[2]}")
    refused(spark, config(folder), "log.impressions", f"no events on {DAYS[2]}")


def test_a_day_after_the_log_s_last(spark: SparkSession, folder: Path) -> None:
    settings = config(folder)
    after = DAYS[-1] + dt.timedelta(days=1)
    with pytest.raises(LogError, match=f"no events on {after}"):
        build_samples(spark, settings, DAYS[0], after)


def test_a_day_known_to_be_empty_is_a_day_of_no_rows(spark: SparkSession, folder: Path) -> None:
    shutil.rmtree(folder / "impressions" / f"day={DAYS[2]}")
    log = config(folder).model_dump(by_alias=True)["log"] | {"empty_days": [DAYS[2]]}
    report = build_samples(spark, config(folder, log=log), DAYS[1], DAYS[3])
    assert [day.rows for day in report.contract.days] == [20, 0, 20]


def test_an_empty_click_log(spark: SparkSession, folder: Path) -> None:
    for day in range(len(DAYS)):
        rewrite(day_file(folder, "clicks", day), lambda table: table.slice(0, 0))
    refused(spark, config(folder), "log.clicks", "no events")


@pytest.mark.parametrize("column", ["impression_id", "user_id", "item_id", "ts"])
def test_ids_that_are_null(spark: SparkSession, folder: Path, column: str) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = [None, *table[column].to_pylist()[1:]]
        return table.set_column(table.schema.get_field_index(column), column, pa.array(values, table.schema.field(column).type))

    rewrite(day_file(folder, "impressions"), spoil)
    name = "time" if column == "ts" else column
    refused(spark, config(folder), "log.impressions", f"{name} is null in 1 of", "IS NOT NULL")


@pytest.mark.parametrize("label", ["clicked * 2", "if(clicked = 1, 'yes', 'no')", "nullif(clicked, 1)", "clicked * 0.5"])
def test_a_label_that_is_not_0_or_1(spark: SparkSession, folder: Path, label: str) -> None:
    columns = {**EVENT, "device": "device", "bid": "bid", "label": label}
    log = {"kind": "labeled", "impressions": {"path": str(folder / "impressions"), "columns": columns, "day_column": "day"}}
    refused(spark, config(folder, log=log), "log.impressions", "label is", "a label is 0 or 1")


def test_a_table_whose_column_the_log_has_already(spark: SparkSession, folder: Path) -> None:
    items = {"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "device": "category"}}
    refused(spark, config(folder, items=items), "items.columns", "'device'", "another name")


def test_a_file_that_is_no_parquet(spark: SparkSession, folder: Path) -> None:
    for path in (folder / "impressions").rglob("*.parquet"):
        path.write_bytes(b"impression_id,user_id\n1,2\n")
    refused(spark, config(folder), "log.impressions", "as parquet")
