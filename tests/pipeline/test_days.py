from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mian.contract import read_contract
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig
from pipeline.days import HOUR_MICROSECONDS, ONE_DAY, Calendar, day_number
from pipeline.logs.errors import LogError
from tests.support.small_logs import EVENT, IMPRESSIONS, config, write_day

ZONES = ["Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu", "UTC"]
ORIGIN = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
SECOND = dt.timedelta(seconds=1)
#: The days on which clocks of Zurich are changed, of 23 and of 25 hours.
SPRING, AUTUMN = dt.date(2026, 3, 29), dt.date(2026, 10, 25)
ZURICH = ZoneInfo("Europe/Zurich")


def micros(moment: dt.datetime) -> int:
    return (moment - ORIGIN) // dt.timedelta(microseconds=1)


def moments(zone: str) -> st.SearchStrategy[dt.datetime]:
    """Any moment, and those within two days of a change of clocks of the years around."""
    info = ZoneInfo(zone)
    start = dt.datetime(2015, 1, 1, tzinfo=dt.timezone.utc)
    hours = [start + n * dt.timedelta(hours=1) for n in range(24 * 365 * 5)]
    changes = [a for a, b in itertools.pairwise(hours) if a.astimezone(info).utcoffset() != b.astimezone(info).utcoffset()]
    near = st.builds(
        lambda at, seconds: at + seconds * SECOND, st.sampled_from(changes or [start]), st.integers(-172_800, 172_800)
    )
    return st.one_of(near, st.datetimes(dt.datetime(1990, 1, 2), dt.datetime(2100, 12, 30), timezones=st.just(dt.timezone.utc)))


@pytest.mark.parametrize("zone", ZONES)
def test_the_day_of_a_moment_is_the_date_that_its_clocks_show(zone: str) -> None:
    calendar = Calendar(zone)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(moments(zone), min_size=1, max_size=10))
    def check(times: list[dt.datetime]) -> None:
        dates = [time.astimezone(ZoneInfo(zone)).date() for time in times]
        at = np.array([micros(time) for time in times])
        numbers = calendar.numbers(at)
        assert numbers.tolist() == [day_number(date) for date in dates]
        starts = calendar.starts(numbers)
        assert (starts <= at).all() and (at < calendar.starts(numbers + 1)).all()
        for start, date in zip(starts.tolist(), dates, strict=True):  # the first moment, and no earlier one, is of the day
            assert calendar.day(start) == date
            assert calendar.day(start - 1) < date

    check()


@pytest.mark.parametrize(("day", "hours"), [(SPRING, 23), (AUTUMN, 25), (SPRING + ONE_DAY, 24)])
def test_days_on_which_clocks_change_are_shorter_or_longer(day: dt.date, hours: int) -> None:
    calendar = Calendar("Europe/Zurich")
    assert calendar.start(day + ONE_DAY) - calendar.start(day) == hours * HOUR_MICROSECONDS


def test_a_day_that_a_zone_left_out_has_no_moment() -> None:
    calendar = Calendar("Pacific/Apia")  # there was no 30 December 2011 there
    start = calendar.start(dt.date(2011, 12, 31))
    assert [calendar.day(start - 1), calendar.day(start)] == [dt.date(2011, 12, 29), dt.date(2011, 12, 31)]


@pytest.mark.parametrize("name", ["Europe/Zürich", "Mars/Olympus", "", "../etc/passwd", "CEST"])
def test_an_unknown_time_zone_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="there is no time zone"):
        config(tmp_path, day_time_zone=name)


def test_sql_and_numpy_agree_on_days(spark: SparkSession) -> None:
    calendar = Calendar("Europe/Zurich")
    times = [calendar.start(day) + shift for day in (SPRING, SPRING + ONE_DAY, AUTUMN, AUTUMN + ONE_DAY) for shift in (-1, 0, 1)]
    frame = spark.createDataFrame([(n,) for n in times], "micros long").withColumn("time", F.timestamp_micros("micros"))
    rows = frame.select(F.expr(calendar.number_sql("time")), F.unix_micros(F.expr(calendar.start_sql(SPRING)))).collect()
    assert [row[0] for row in rows] == calendar.numbers(np.array(times)).tolist()
    assert {row[1] for row in rows} == {calendar.start(SPRING)}


def zurich_logs(folder: Path, day: dt.date) -> DataConfig:
    """An impression every half hour of four local days around ``day``, in folders of local days; each user clicks every second one."""
    first, last = day - 2 * ONE_DAY, day + ONE_DAY
    moment = dt.datetime.combine(first, dt.time(0, 15), ZURICH).astimezone(dt.timezone.utc)
    rows: dict[dt.date, list[dict[str, Any]]] = {}
    while (date := moment.astimezone(ZURICH).date()) <= last:
        n = sum(map(len, rows.values()))
        row = {"impression_id": f"p{n}", "user_id": f"u{n % 2}", "item_id": f"i{n % 7}", "ts": moment, "clicked": int(n % 4 < 2)}
        rows.setdefault(date, []).append(row | {"device": "phone", "bid": 1.0})
        moment += dt.timedelta(minutes=30)
    for date, part in rows.items():
        write_day(folder / "log", date, part, IMPRESSIONS)
    log = {
        "kind": "labeled",
        "label_delay_hours": 0,
        "impressions": {"path": str(folder / "log"), "day_column": "day", "columns": {**EVENT, "label": "clicked"}},
    }
    fields = {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}, "gap": {"kind": "time_gap"}}}
    return config(
        folder,
        log=log,
        items=None,
        fields=fields,
        history={"length": 100, "days": 1, "cutoff": "previous_day"},
        day_time_zone="Europe/Zurich",
        splits={"train": {"first": first, "last": day}, "test": {"first": last, "last": last}},
    )


@pytest.mark.parametrize(("day", "hours"), [(SPRING, 23), (AUTUMN, 25)])
def test_splits_partitions_cutoffs_and_the_audit_follow_the_time_zone(
    spark: SparkSession, tmp_path: Path, day: dt.date, hours: int
) -> None:
    small = zurich_logs(tmp_path, day)
    contract = build_samples(spark, small, day - ONE_DAY, day + ONE_DAY).contract
    assert contract.day_time_zone == read_contract(small.samples).day_time_zone == "Europe/Zurich"
    assert {found.day: found.rows for found in contract.days} == {day - ONE_DAY: 48, day: 2 * hours, day + ONE_DAY: 48}
    assert all(found.quality is not None and not found.quality.quarantined for found in contract.days)
    shown = pq.read_table(tmp_path / "log", columns=["user_id", "ts", "clicked"]).to_pylist()
    users = {"u0": set[int](), "u1": set[int]()}
    for found in contract.days:
        midnight = dt.datetime.combine(found.day, dt.time(), ZURICH).astimezone(dt.timezone.utc)
        known = [r for r in shown if r["clicked"] and midnight - ONE_DAY <= r["ts"] < midnight]
        wanted = {user: sum(r["user_id"] == user for r in known) for user in users}
        for file in found.files:
            for row in pq.read_table(tmp_path / "samples" / file.path).to_pylist():
                n = int(row["impression_id"][1:])
                assert row["behavior_length"] == wanted[f"u{n % 2}"], (found.day, row["impression_id"])
        assert found.statistics is not None
        assert json.loads((tmp_path / "samples" / found.statistics.path).read_text())["rows"] == found.rows
    assert audit(spark, small, rows=40).findings == []
    other = small.model_copy(update={"day_time_zone": "UTC"})  # an auditor of another belief sees other days
    assert audit(spark, other, rows=40).found("time")


def test_folders_of_the_days_of_another_zone_break_a_rule(spark: SparkSession, tmp_path: Path) -> None:
    small = zurich_logs(tmp_path, SPRING).model_copy(update={"day_time_zone": "UTC"})
    with pytest.raises(LogError, match=r"lies in the partition of another day.*day_time_zone"):
        build_samples(spark, small, SPRING, SPRING)


@pytest.mark.parametrize("zone", ["posix/Europe/Zurich", "right/UTC", "localtime", "Factory", "", "../UTC", "Mars/Olympus"])
def test_a_zone_that_java_does_not_know_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        Calendar(zone)
