"""The join of the Spark job against the brute force, row for row, on generated worlds; a case for each rule of time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipeline.config import DataConfig
from pipeline.days import days_between
from pipeline.join.blobs import unpack
from pipeline.join.outputs import SAMPLES
from pipeline.join.partition import join_by_user
from pipeline.join.plan import join_plan
from pipeline.join.rows import all_rows
from pipeline.logs.events import EventLogs
from tests.support import oracle
from tests.support.log_worlds import FIRST, LAST, Worlds
from tests.support.oracle import Rules

WORLDS = 200

pytestmark = pytest.mark.spark

CASES = {
    "plain": Worlds(WORLDS, Rules()),
    "validity, arrival and age": Worlds(WORLDS, Rules(arrivals=True, max_age=dt.timedelta(days=12))),
    "long history with late arrivals": Worlds(WORLDS, Rules(arrivals=True, length=50)),
    "the day before": Worlds(WORLDS, Rules(previous_day=True)),
    "the day before, with lag and arrival": Worlds(WORLDS, Rules(previous_day=True, arrivals=True, lag=dt.timedelta(hours=6))),
    "lag": Worlds(WORLDS, Rules(lag=dt.timedelta(minutes=90), window=dt.timedelta(days=3))),
    "attribution by user and item": Worlds(WORLDS, Rules(by_item=True)),
    "attribution by user and item, short": Worlds(WORLDS, Rules(by_item=True, attribution=dt.timedelta(seconds=1))),
    "several actions": Worlds(WORLDS, Rules(arrivals=True), several_actions=True),
}


def raw_samples(spark: SparkSession, config: DataConfig, first: dt.date = FIRST, last: dt.date = LAST) -> list[oracle.Sample]:
    events = EventLogs(spark, config).read(first, last)
    rows = all_rows(spark, config, events)
    plan = join_plan(config, events.rows, days_between(first, last), rows)
    blobs = join_by_user(rows, plan, 3).where(f"kind = '{SAMPLES}'").select("payload").collect()
    names = list(oracle.Sample.__dataclass_fields__)
    found = []
    for blob in blobs:
        table, _ = unpack(bytes(blob["payload"]))
        columns = {name: plain(table.column(name)) for name in names}
        found += [
            oracle.Sample(**{name: tuple(v[i]) if isinstance(v[i], list) else v[i] for name, v in columns.items()})
            for i in range(table.num_rows)
        ]
    return found


def plain(column: pa.ChunkedArray) -> list[object]:
    return column.to_pylist()


@pytest.mark.parametrize("case", CASES)
def test_every_row_equals_the_brute_force(spark: SparkSession, case: str, tmp_path: Path) -> None:
    worlds = CASES[case]
    found = raw_samples(spark, worlds.write(tmp_path))
    assert len(found) == len(worlds.expected)
    assert {sample.impression_id: sample for sample in found} == worlds.expected


@pytest.mark.parametrize("case", CASES)
def test_the_worlds_are_not_trivial(case: str) -> None:
    worlds = CASES[case]
    samples = worlds.expected.values()
    assert {len(sample.behavior_item_id) for sample in samples} >= set(range(5))
    assert {sample.label for sample in samples} == {0, 1}
    assert {sample.user_age for sample in samples} >= {None, "20"}
    assert None in {sample.candidate_category for sample in samples}
    plain = CASES["plain"].expected
    if case != "plain":  # the rule matters
        assert sum(plain[sample.impression_id] != sample for sample in samples) > 20


@pytest.mark.parametrize("case", ["attribution by user and item", "the day before, with lag and arrival", "lag"])
def test_a_day_alone_has_the_rows_that_it_has_among_others(spark: SparkSession, case: str, tmp_path: Path) -> None:
    worlds = CASES[case]
    config = worlds.write(tmp_path)
    day = dt.date(2026, 1, 2)
    alone = {sample.impression_id: sample for sample in raw_samples(spark, config, day, day)}
    there = {i.impression_id for i in worlds.impressions if i.time.date() == day}
    assert alone == {key: sample for key, sample in worlds.expected.items() if key in there}
    assert len(there) > 20


def test_profiles_are_joined_by_spark_where_a_field_needs_both_tables(spark: SparkSession, tmp_path: Path) -> None:
    worlds = CASES["validity, arrival and age"]
    values = worlds.config(tmp_path)
    worlds.write(tmp_path)
    values["fields"]["user"]["age"] = {"expression": "if(device = 'z', 'never', age)"}  # of the impression and of the user
    config = DataConfig.model_validate(values)
    events = EventLogs(spark, config).read(FIRST, LAST)
    assert all_rows(spark, config, events).profile_columns == ()
    assert {sample.impression_id: sample for sample in raw_samples(spark, config)} == worlds.expected
