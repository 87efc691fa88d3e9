"""Keys that never meet are said, with ids of both sides; those that do are counted."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.build import build_samples
from pipeline.config import DataConfig
from pipeline.join.unmatched import refuse_unmatched
from pipeline.logs.errors import LogError
from tests.support.joined import join
from tests.support.small_logs import DAYS, EVENT, config, write_logs

pytestmark = pytest.mark.spark

FIRST, LAST = DAYS[0], DAYS[2]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder, per_day=30)
    users = pa.table({"user_id": [f"u{n}" for n in range(6)], "mood": list("abcabc")})
    pq.write_table(users, folder / "users.parquet")
    return folder


def settings(logs: Path, log: dict[str, Any] | None = None, **changes: Any) -> DataConfig:
    """The small logs with a table of users and a lookup of hours; ``log`` replaces keys of the part ``log``."""
    plain = config(logs).model_dump(mode="json", by_alias=True, exclude_unset=True)
    users = {"path": str(logs / "users.parquet"), "columns": {"user_id": "user_id", "mood": "mood"}}
    lookup = {"path": str(logs / "items.parquet"), "keys": ["device"], "columns": {"device": "'phone'", "screen": "'small'"}}
    values = {"log": plain["log"] | (log or {}), "users": users, "lookups": [lookup], "samples": str(logs / "samples")}
    return config(logs, **(values | changes))


def clicks(logs: Path, **columns: str) -> dict[str, Any]:
    return {"clicks": {"path": str(logs / "clicks"), "columns": EVENT | columns, "day_column": "day"}}


def judged(spark: SparkSession, options: DataConfig, first: dt.date = FIRST, last: dt.date = LAST) -> dict[dt.date, Any]:
    found = join(spark, options, first, last)[1]
    refuse_unmatched(spark, options, found)
    return found


def test_rows_that_found_their_partner_are_counted_by_day_and_source(spark: SparkSession, logs: Path) -> None:
    found = judged(spark, settings(logs))
    for day in (FIRST, LAST):
        shown = pq.read_table(logs / "impressions" / f"day={day}", partitioning=None).to_pylist()
        clicked = sum(row["clicked"] for row in shown)
        counts = {source: (n["rows"], n["found"], n["early"]) for source, n in found[day].items()}
        assert counts == {
            "clicks": (clicked, clicked, 0),
            "items": (30, 30, 0),
            "behaviors": (clicked, clicked, 0),
            "users": (30, sum(row["user_id"] not in ("u6", "u7") for row in shown), 0),
            "lookups.0": (30, sum(row["device"] == "phone" for row in shown), 0),
        }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"clicks": {"impression_id": "concat('00', impression_id)"}},
            r"none of \d+ clicks found a row of log.impressions with their impression_id and user_id; so the ids are of two kinds. "
            r"Clicks such as '00.*' of user 'u\d', .*, .*; log.impressions has such as '2026-.*' of user 'u\d', .*, .*"
            r"quality.min_matched: {clicks: 0}",
        ),
        ({"clicks": {"user_id": "concat('x', user_id)"}}, r"none of \d+ clicks found a row of log.impressions.*of user 'xu\d'"),
        ({"items": "concat('0', item_id)"}, r"none of 90 impressions found a row of items.* such as 'i\d+', 'i.*such as '0i"),
        (
            {"users": "upper(user_id)"},
            r"none of 90 impressions found a row of users with their user_id.*such as 'u\d'.*such as 'U\d'",
        ),
    ],
    ids=["impressions of clicks", "users of clicks", "items", "users"],
)
def test_ids_that_never_meet_stop_the_build_and_are_shown(
    spark: SparkSession, logs: Path, changes: dict[str, Any], words: str
) -> None:
    log = clicks(logs, **changes["clicks"]) if "clicks" in changes else None
    tables: dict[str, Any] = {}
    if "items" in changes:
        columns = {"item_id": changes["items"], "category": "category"}
        tables["items"] = {"path": str(logs / "items.parquet"), "columns": columns}
    if "users" in changes:
        tables["users"] = {"path": str(logs / "users.parquet"), "columns": {"user_id": changes["users"], "mood": "mood"}}
    with pytest.raises(LogError, match=words):
        judged(spark, settings(logs, log, **tables))


def test_a_slow_clock_of_clicks_stops_the_build_before_anything_is_published(spark: SparkSession, logs: Path) -> None:
    """Clicks come 9 s after their impressions; with a clock that is 10 s slow a second before."""
    log = clicks(logs, time="ts - INTERVAL 10 SECONDS")
    with pytest.raises(LogError, match=r"2026-03-01: (\d+) of \1 clicks come before the impression of their id: is the clock"):
        build_samples(spark, settings(logs, log), FIRST, LAST)
    assert not (logs / "samples" / "contract.json").exists()
    allowed = {"quality": {"max_early_clicks": 1, "min_matched": {"clicks": 0}}}
    found = judged(spark, settings(logs, log, **allowed), FIRST, FIRST)
    assert found[FIRST]["clicks"]["early"] == found[FIRST]["clicks"]["rows"] > 5
    assert found[FIRST]["clicks"]["found"] == 0


def test_a_click_on_an_impression_of_the_day_before_is_not_alone(spark: SparkSession, logs: Path) -> None:
    """Twelve hours late: half of a day's clicks are of the day before, which is not built."""
    log = clicks(logs, time="ts + INTERVAL 12 HOURS")
    del log["clicks"]["day_column"]
    found = judged(spark, settings(logs, log), LAST, LAST)[LAST]["clicks"]
    assert found["rows"] == found["found"] > 5


def test_a_click_whose_impression_may_not_have_been_read_is_not_counted(spark: SparkSession, logs: Path) -> None:
    log = clicks(logs, time="ts + INTERVAL 60 HOURS") | {"attribution_hours": 72}
    del log["clicks"]["day_column"]
    found = judged(spark, settings(logs, log), DAYS[3], DAYS[3])
    assert found[DAYS[3]].get("clicks", {"rows": 0})["rows"] == 0


def test_a_share_can_be_asked_of_each_source(spark: SparkSession, logs: Path) -> None:
    asked = settings(logs, quality={"min_matched": {"users": 0.95, "lookups.0": 0.1}})
    with pytest.raises(
        LogError, match=r"2026-03-0\d: \d+ of 30 impressions found a row of users .*min_matched.users asks for 0.95"
    ):
        judged(spark, asked)
    with pytest.raises(
        LogError, match=r"\d+ of 30 impressions found a row of lookups.0 with their device; .*asks for 0.9 .*'phone'"
    ):
        judged(spark, settings(logs, quality={"min_matched": {"lookups.0": 0.9}}))


def test_text_ids_that_differ_by_zeros_before_them_are_said_where_others_meet(
    spark: SparkSession, logs: Path, tmp_path: Path
) -> None:
    """Users u0 to u5 as text of numbers: 0 and 1 meet, the others have zeros before them on one side."""
    number, padded = "substr(user_id, 2)", "if(user_id < 'u2', substr(user_id, 2), lpad(substr(user_id, 2), 3, '0'))"
    log = settings(logs).model_dump(mode="json", by_alias=True, exclude_unset=True)["log"]
    for shown, known in ((number, padded), (padded, number)):
        ids = {name: {**log[name], "columns": {**log[name]["columns"], "user_id": shown}} for name in ("impressions", "clicks")}
        users = {"path": str(logs / "users.parquet"), "columns": {"user_id": known, "mood": "mood"}}
        words = (
            r"impressions have the user_id '(00)?[2-5]', and users has '(00)?[2-5]': these never meet.*min_matched: {users: 0}"
        )
        with pytest.raises(LogError, match=words):
            judged(spark, settings(logs, ids, users=users), FIRST, FIRST)
        judged(spark, settings(logs, ids, users=users, quality={"min_matched": {"users": 0}}), FIRST, FIRST)


@pytest.mark.parametrize(("shown", "known"), [("7", "'7'"), ("'7'", "7"), ("7", "7.0D"), ("true", "'true'"), ("7.5D", "'7.5'")])
def test_keys_of_a_lookup_meet_whatever_their_types(spark: SparkSession, logs: Path, shown: str, known: str) -> None:
    log = settings(logs).model_dump(mode="json", by_alias=True, exclude_unset=True)["log"]
    shop = {"impressions": {**log["impressions"], "columns": {**log["impressions"]["columns"], "shop": shown}}}
    lookup = {"path": str(logs / "items.parquet"), "keys": ["shop"], "columns": {"shop": known, "screen": "'small'"}}
    assert judged(spark, settings(logs, shop, lookups=[lookup]), FIRST, FIRST)[FIRST]["lookups.0"]["found"] == 30


def test_a_key_of_many_values_is_refused_with_the_name_of_its_lookup(spark: SparkSession, logs: Path) -> None:
    lookup = {"path": str(logs / "items.parquet"), "keys": ["device"], "columns": {"device": "map('a', 1)", "screen": "'small'"}}
    with pytest.raises(LogError, match=r"lookups.0.keys: device is map<string,int>, which is many values"):
        judged(spark, settings(logs, lookups=[lookup]), FIRST, FIRST)


def test_a_lookup_may_have_no_row_for_a_day(spark: SparkSession, logs: Path) -> None:
    lookup = {"path": str(logs / "items.parquet"), "keys": ["device"], "columns": {"device": "'watch'", "screen": "'tiny'"}}
    assert judged(spark, settings(logs, lookups=[lookup]), FIRST, FIRST)[FIRST]["lookups.0"]["found"] == 0


def test_a_share_of_a_source_that_is_not_there_is_refused(logs: Path) -> None:
    with pytest.raises(
        ValueError, match=r"min_matched names click; what can find a partner here is clicks, items, users, behaviors"
    ):
        settings(logs, quality={"min_matched": {"click": 0.5}})
