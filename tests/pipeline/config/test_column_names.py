"""Columns of a log may have any name that a configuration accepts, those that Spark or this package use included."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark

NAMES = (
    "day",
    "kind",
    "file",
    "payload",
    "action",
    "reason",
    "row",
    "best",
    "value",
    "count",
    "geo city",
    "größe",
    "a,b",
    "a{b}",
)


def test_columns_of_any_name_are_values_of_the_log_and_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path, per_day=20, days=2)
    values = config(tmp_path).model_dump(by_alias=True, exclude_unset=True)
    splits = {"train": {"first": DAYS[0], "last": DAYS[0]}, "test": {"first": DAYS[1], "last": DAYS[1]}}
    values |= {"splits": splits, "vocabularies": {name: {"min_count": 1} for name in NAMES}, "items": None}
    values["log"]["impressions"]["columns"] |= dict.fromkeys(NAMES, "device")
    values["lookups"] = [
        {"path": str(tmp_path / "items.parquet"), "columns": {"item_id": "item_id", "category": "category"}, "keys": ["item_id"]}
    ]
    values["fields"]["context"] = {name: {} for name in NAMES}
    values["fields"]["behaviors"] = {"item_id": {}}
    made = DataConfig.model_validate(values)
    contract = build_samples(spark, made, DAYS[0], DAYS[1]).contract
    for name in NAMES:
        path = contract.vocabulary(name).path
        assert path is not None
        assert sorted(pq.read_table(tmp_path / "samples" / path)["value"].to_pylist()) == ["desktop", "phone"], name
    for day in contract.days:
        table = pq.read_table(tmp_path / "samples" / day.files[0].path, partitioning=None)
        expected = table["context_day"].to_pylist()
        assert set(expected) == {2, 3}
        assert all(table[f"context_{name}"].to_pylist() == expected for name in NAMES)
    assert not audit(spark, made, 20, 0).findings
