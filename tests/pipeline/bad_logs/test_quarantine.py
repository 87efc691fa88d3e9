"""A row that breaks a rule goes to the quarantine with its reason; the others are published."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.build import BuildReport, build_samples
from tests.support.broken_shop import (
    COLUMNS,
    DAYS,
    MINUTE,
    SCHEMA,
    TIMESTAMP,
    Built,
    Row,
    Shop,
    midnight,
)

pytestmark = pytest.mark.spark


# Rows of lines that break a rule


def milliseconds(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


def line(name: str, **values: Any) -> bytes:
    noon = milliseconds(midnight(DAYS[0]) + 720 * MINUTE)
    row = {"id": name, "user": "u1", "item": "i1", "time": noon, "arrived": noon, "label": 1, "device": "phone"} | values
    return ",".join(map(str, row.values())).encode("latin-1") + b"\n"


NOON = milliseconds(midnight(DAYS[0]) + 720 * MINUTE)
BROKEN_LINES = {
    "no-user": (line("no-user", user=""), "user_id is null or empty"),
    "no-item": (line("no-item", item=""), "item_id is null or empty"),
    "no-utf-8": (line("no-utf-8", user="Zoë"), "user_id is not UTF-8 text"),
    "10-MB-id": (line("10-MB-id", user="u" * 10_000_000), "user_id has more than 1000 bytes"),
    "too-few-columns": (b"too-few-columns,u1,i1\n", "the line cannot be parsed"),
    "too-many-columns": (line("too-many-columns", more="more"), "the line cannot be parsed"),
    "no-number": (line("no-number", time="noon"), "the line cannot be parsed"),
    "no-time": (line("no-time", time=""), "time is null"),
    "negative-time": (line("negative-time", time=-1), "time lies outside the years 1990 to 2100"),
    "seconds": (line("seconds", time=NOON // 1000), "time lies outside the years 1990 to 2100"),
    "year-9999": (line("year-9999", time=253_402_300_799_000), "time lies outside the years 1990 to 2100"),
    "microseconds": (line("microseconds", time=NOON * 1000), "time lies outside the years 1990 to 2100"),
    "other-day": (line("other-day", time=NOON + 86_400_000), "the row lies in the partition of another day"),
    "no-arrival": (line("no-arrival", arrived=""), "arrived is null"),
    "arrived-before": (line("arrived-before", arrived=NOON - 300_001), "the row arrived before it happened"),
    "label-2": (line("label-2", label=2), "label is neither 0 nor 1"),
    "label-yes": (line("label-yes", label="yes"), "label is neither 0 nor 1"),
    "label-half": (line("label-half", label=0.5), "label is neither 0 nor 1"),
    "no-label": (line("no-label", label=""), "label is neither 0 nor 1"),
    "twice": (line("twice") * 2, "a duplicate of another impression"),
}
GOOD_LINES = {
    "clocks-differ": line("clocks-differ", arrived=NOON - 300_000),
    "10-MB-device": line("10-MB-device", device="d" * 10_000_000),
    "no-device": line("no-device", device=""),
}


@pytest.fixture(scope="module")
def lines(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """CSV that is good but for some lines; the first day's begins with a byte order mark."""
    shop = Shop(tmp_path_factory.mktemp("lines"))
    broken = b"".join(content for content, _ in BROKEN_LINES.values()) + b"".join(GOOD_LINES.values())
    more = [line(f"good-{n}", user=f"u{n % 3}", item=f"i{n % 4}") for n in range(10)]
    (shop.partition(DAYS[0]) / "part-0.csv").write_bytes(b"\xef\xbb\xbf" + more[0] + broken + b"".join(more[1:]))
    (shop.partition(DAYS[1]) / "part-0.csv").write_bytes(
        b"".join(line(f"later-{n}", time=NOON + 86_400_000, arrived=NOON + 86_400_000) for n in range(3))
    )
    (shop.partition("foo") / "part-0.csv").write_bytes(line("no-day"))
    names = "impression_id STRING, user_id STRING, item_id STRING, ts BIGINT, arrived BIGINT, clicked STRING, device STRING"
    columns = COLUMNS | {"time": "timestamp_millis(ts)", "arrived": "timestamp_millis(arrived)"}
    config = shop.config(format="csv", schema=names, columns=columns, changes={"quality": {"max_quarantined": 0.9}})
    report: BuildReport = build_samples(spark, config, *DAYS)
    return Built(shop.samples, report.contract)


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_goes_to_the_quarantine_with_its_reason(lines: Built, name: str) -> None:
    assert lines.reasons(DAYS[0])[name] == f"log.impressions: {BROKEN_LINES[name][1]}"
    assert lines.ids(DAYS[0]).count(name) == (name == "twice")


def test_a_line_in_a_folder_of_no_day_goes_to_the_quarantine_of_the_first_day(lines: Built) -> None:
    assert lines.reasons(DAYS[0])["no-day"] == "log.impressions: the row lies in a partition that is no date"


def test_the_good_lines_beside_broken_ones_are_published(lines: Built) -> None:
    assert lines.ids(DAYS[0]) == sorted(["twice", *GOOD_LINES, *(f"good-{n}" for n in range(10))])
    assert lines.ids(DAYS[1]) == [f"later-{n}" for n in range(3)]
    assert lines.reasons(DAYS[1]) == {}


def test_a_value_that_no_one_can_mean_is_unknown(lines: Built) -> None:
    devices = lines.column(DAYS[0], "context_device")
    assert devices["10-MB-device"] == devices["no-device"] == 1
    assert devices["clocks-differ"] > 1
    assert lines.words("device") == {"phone"}


def test_a_10_mb_value_is_cut_in_the_quarantine(lines: Built) -> None:
    (day, _) = lines.contract.days
    assert day.quarantine is not None
    rows = pq.read_table(lines.samples / day.quarantine.path)["row"].to_pylist()
    assert max(map(len, rows)) < 11_000


# Rows of tables that break a rule


@pytest.fixture(scope="module")
def nested(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Parquet with nested columns, bytes and late rows; clicks and tables with what may happen to such."""
    shop = Shop(tmp_path_factory.mktemp("nested"))
    names = SCHEMA.remove(5).set(1, pa.field("user", pa.struct({"id": pa.string()})))
    names = names.set(2, pa.field("item_id", pa.binary())).set(3, pa.field("ts", pa.string()))
    names = names.set(4, pa.field("device", pa.binary()))

    def row(name: str, day: dt.date, **values: Any) -> Row:
        found = {"impression_id": name, "user": {"id": "u1"}, "item_id": b"i1", "ts": f"{day} 12:00:00", "device": b"phone"}
        return found | values

    first = [row(f"first-{n}", DAYS[0], item_id=b"i%d" % (n % 2)) for n in range(8)]
    first += [row("null-parent", DAYS[0], user=None), row("null-child", DAYS[0], user={"id": None})]
    first += [row("bytes", DAYS[0], item_id=b"\xff\xfe"), row("no-time", DAYS[0], ts="noon")]
    first += [row("device-in-latin-1", DAYS[0], device="téléphone".encode("latin-1"))]
    first += [row("early", DAYS[1]), row("unknown-item", DAYS[0], item_id=b"i9")]
    shop.parquet(DAYS[0], first, names)
    second = [row(f"second-{n}", DAYS[1]) for n in range(3)] + [row("late", DAYS[0])]
    shop.parquet(DAYS[1], second, pa.schema(list(names)[::-1]))
    (shop.partition(DAYS[1]) / "part-1.parquet").write_bytes(b"")
    clicked = [{"impression_id": name, "user_id": "u1", "item_id": "i1", "ts": midnight(DAYS[0]) + 721 * MINUTE} for name in "ab"]
    clicked.append({**clicked[0], "impression_id": "first-1"})
    pq.write_table(pa.Table.from_pylist(clicked, pa.schema(list(SCHEMA)[:4])), shop.folder / "clicks.parquet")
    items = pa.table({"item_id": ["i0", "i0", "i1", None], "category": ["a", "z", "y", "x"]})
    pq.write_table(items, shop.folder / "items.parquet")
    known = pa.array([None, midnight(DAYS[0])], TIMESTAMP)
    pq.write_table(pa.table({"user_id": ["u1", "u1"], "age": ["99", "30"], "since": known}), shop.folder / "users.parquet")
    columns = {"impression_id": "impression_id", "user_id": "user.id", "item_id": "item_id", "device": "device"}
    event = {"impression_id": "impression_id", "user_id": "user_id", "item_id": "item_id", "time": "ts"}
    log = {
        "kind": "impressions_and_clicks",
        "impressions": {
            "path": str(shop.folder / "log"),
            "columns": columns | {"time": "try_to_timestamp(ts)"},
            "day_column": "day",
            "late_days": 1,
        },
        "clicks": {"path": str(shop.folder / "clicks.parquet"), "columns": event},
    }
    changes = {
        "log": log,
        "items": {
            "path": str(shop.folder / "items.parquet"),
            "columns": {"item_id": "item_id", "category": "category"},
            "missing": "quarantine",
        },
        "users": {
            "path": str(shop.folder / "users.parquet"),
            "columns": {"user_id": "user_id", "age": "age", "valid_from": "since"},
        },
        "fields": {"candidate": {"item_id": {}, "category": {}}, "user": {"age": {}}, "context": {"device": {}}},
        "quality": {"max_quarantined": 0.5},
    }
    report = build_samples(spark, shop.config(changes=changes), *DAYS)
    return Built(shop.samples, report.contract)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("null-parent", "user_id is null or empty"),
        ("null-child", "user_id is null or empty"),
        ("bytes", "item_id is not UTF-8 text"),
        ("no-time", "time is null"),
        ("early", "the row lies in the partition of another day"),
        ("unknown-item", "nothing is known of it in items"),
    ],
)
def test_a_broken_row_goes_to_the_quarantine_with_its_reason(nested: Built, name: str, reason: str) -> None:
    assert nested.reasons(DAYS[0])[name] == f"log.impressions: {reason}"
    assert name not in nested.ids(DAYS[0]) + nested.ids(DAYS[1])


def test_a_late_row_is_of_its_own_day(nested: Built) -> None:
    assert nested.ids(DAYS[0]) == sorted(["device-in-latin-1", "late", *(f"first-{n}" for n in range(8))])
    assert nested.ids(DAYS[1]) == [f"second-{n}" for n in range(3)]  # in columns of another order, beside a file of no bytes


def test_a_value_that_is_no_text_is_unknown(nested: Built) -> None:
    assert nested.column(DAYS[0], "context_device")["device-in-latin-1"] == 1
    assert nested.words("device") == {"phone"}


def test_clicks_without_impressions_are_no_labels(nested: Built) -> None:
    assert [name for name, label in nested.column(DAYS[0], "label").items() if label] == ["first-1"]


def test_of_items_with_one_key_the_greatest_counts_and_those_without_a_key_do_not(nested: Built) -> None:
    assert nested.words("category") == {"y", "z"}


def test_what_is_known_of_a_user_since_no_one_says_when_does_not_count(nested: Built) -> None:
    assert nested.words("age") == {"30"}
