from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import Contract
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig
from pipeline.logs.errors import LogError
from tests.support.small_logs import DAYS, TIMESTAMP, config, write_logs

SCHEMA = pa.schema([("user_id", pa.string()), ("city", pa.string()), ("since", TIMESTAMP), ("there", TIMESTAMP)])
LONG_AGO = dt.datetime.combine(DAYS[0] - dt.timedelta(days=30), dt.time(), dt.timezone.utc)
NAMES = {"user_id": "user_id", "city": "city", "valid_from": "since"}


def with_users(folder: Path, rows: list[dict[str, Any]], columns: dict[str, str], **changes: Any) -> DataConfig:
    write_logs(folder)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "users.parquet")
    fields = config(folder).model_dump(mode="json", exclude_unset=True)["fields"]
    fields["user"] = {"city": {}}
    users = {"path": str(folder / "users.parquet"), "columns": columns}
    return config(folder, fields=fields, users=users, **changes)


def users(**values: Any) -> list[dict[str, Any]]:
    return [{"user_id": f"u{n}", "city": f"c{n}", "since": LONG_AGO, "there": LONG_AGO, **values} for n in range(8)]


def cities(small: DataConfig, contract: Contract) -> list[str]:
    path = contract.vocabulary("city").path
    assert path is not None
    values: list[str] = pq.read_table(Path(small.samples) / path)["value"].to_pylist()
    return sorted(values)


@pytest.mark.parametrize(
    ("since", "says"),
    [
        (
            "timestamp_seconds(unix_millis(since))",
            "valid_from lies outside the years 1990 to 2100 in 8 of 8 rows.*timestamp_millis",
        ),
        ("timestamp_millis(unix_seconds(since))", "valid_from lies outside the years.*such as user_id 'u.', valid_from '1970-"),
        ("CAST(NULL AS TIMESTAMP)", "valid_from is null in 8 of 8 rows.*leave the column valid_from out"),
    ],
)
def test_a_table_whose_valid_from_is_null_or_in_another_unit_is_refused(
    spark: SparkSession, tmp_path: Path, since: str, says: str
) -> None:
    small = with_users(tmp_path, users(), NAMES | {"valid_from": since})
    with pytest.raises(LogError, match=f"^users: {says}.*quality.max_quarantined allows 0.01 of a table's rows"):
        build_samples(spark, small, DAYS[0], DAYS[0])


def test_a_few_rows_of_a_table_that_break_a_rule_are_left_out_and_counted(spark: SparkSession, tmp_path: Path) -> None:
    rows = users()
    rows += [{**rows[0], "city": "never", "since": None}, {**rows[1], "city": "odd", "since": LONG_AGO.replace(year=1970)}]
    rows += [{**rows[2], "city": "late", "there": None}, {**rows[3], "user_id": None, "city": "nobody"}]
    small = with_users(tmp_path, rows, NAMES | {"arrived": "there"}, quality={"max_quarantined": 0.5})
    contract = build_samples(spark, small, DAYS[0], DAYS[5]).contract
    assert cities(small, contract) == [f"c{n}" for n in range(8)]
    quality = contract.days[0].quality
    assert quality is not None
    assert quality.quarantined == {
        "users: arrived is null": 1,
        "users: user_id is null": 1,
        "users: valid_from is null": 1,
        "users: valid_from lies outside the years 1990 to 2100": 1,
    }
    assert contract.days[0].quarantine is not None
    lines = pq.read_table(Path(small.samples) / contract.days[0].quarantine.path, partitioning=None)["row"].to_pylist()
    assert sorted('"city":"' + city in line for line in lines for city in ("never", "odd", "late", "nobody")).count(True) == 4
    assert audit(spark, small, rows=50).findings == []


@pytest.mark.parametrize("joined_by_spark", [False, True])
def test_a_correction_that_arrived_later_counts_from_its_arrival(
    spark: SparkSession, tmp_path: Path, joined_by_spark: bool
) -> None:
    noon = dt.datetime.combine(DAYS[2], dt.time(12), dt.timezone.utc)
    rows = [
        *users(city="Zurich"),
        *users(city="Athens", there=noon),
    ]  # a row of before that is less, and greater, than its correction
    rows += [*users(city="Zurich", since=LONG_AGO - dt.timedelta(days=1), there=noon + dt.timedelta(hours=1))]  # of an older one
    small = with_users(tmp_path, rows, NAMES | {"arrived": "there"})
    if joined_by_spark:  # a field of both tables' columns has Spark join them
        fields = small.model_dump(mode="json", exclude_unset=True)["fields"]
        fields["user"] = {"city": {"expression": "if(device = 'x', 'x', city)"}}
        small = config(tmp_path, fields=fields, users=small.model_dump(mode="json", exclude_unset=True)["users"])
    contract = build_samples(spark, small, DAYS[0], DAYS[3]).contract
    path = contract.vocabulary("city").path
    assert path is not None
    words = ["padding", "unknown", *pq.read_table(Path(small.samples) / path)["value"].to_pylist()]
    held = set()
    for day in contract.days:
        for file in day.files:
            for row in pq.read_table(
                Path(small.samples) / file.path, columns=["time", "user_city"], partitioning=None
            ).to_pylist():
                after = row["time"] > noon.timestamp() * 1e6
                held.add((after, words[row["user_city"]]))
    assert held == {(False, "Zurich"), (True, "Athens")}
    assert audit(spark, small, rows=50).findings == []
