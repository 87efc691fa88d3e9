"""Labels: when they are known, which of several deliveries says them, which impression a click belongs to, when they are final."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.build import build_samples
from pipeline.config import DataConfig
from pipeline.join.rows import all_rows
from pipeline.logs.errors import LogError
from pipeline.logs.events import EventLogs
from tests.support.joined import join
from tests.support.small_logs import CLICKS, DAYS, EVENT, TIMESTAMP

pytestmark = pytest.mark.spark

FIRST, SECOND = DAYS[0], DAYS[1]
SCHEMA = pa.schema([*CLICKS, ("label", pa.int32()), ("bought", TIMESTAMP)])
Row = dict[str, Any]


def at(day: dt.date, hour: int, minute: int = 0, second: int = 0) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour, minute, second), dt.timezone.utc)


def row(name: str, user: str, item: str, time: dt.datetime, label: int = 0, bought: dt.datetime | None = None) -> Row:
    return {"impression_id": name, "user_id": user, "item_id": item, "ts": time, "label": label, "bought": bought}


def write(path: Path, rows: list[Row], schema: pa.Schema = SCHEMA) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def config(folder: Path, log: Row, columns: Row | None = None, **changes: Any) -> DataConfig:
    """Logs in ``impressions.parquet`` and ``clicks.parquet``; ``columns`` are more ones of the impressions."""
    source = {"path": str(folder / "impressions.parquet"), "columns": EVENT | (columns or {})}
    clicks = {"path": str(folder / "clicks.parquet"), "columns": EVENT}
    given = {"clicks": clicks} if log["kind"] == "impressions_and_clicks" else {}
    values = {
        "name": "labels",
        "samples": str(folder / "samples"),
        "log": {"impressions": source, "empty_days": "any", **given, **log},
        "fields": {"candidate": {"item_id": {}}, "behaviors": {"item_id": {}, "gap": {"kind": "time_gap"}}},
        "history": {"length": 5, "days": 3},
        "splits": {"train": {"first": FIRST, "last": FIRST}, "test": {"first": SECOND, "last": SECOND}},
    }
    return DataConfig.model_validate(values | changes)


def labeled(folder: Path, log: Row, columns: Row | None = None, **changes: Any) -> DataConfig:
    return config(folder, {"kind": "labeled", **log}, {"label": "label", **(columns or {})}, **changes)


AT_ONCE = {"label_delay_hours": 0}


# When a label is known


def purchases(folder: Path) -> None:
    """Shoes, seen at 10:00, are bought at 18:00 by users with odd numbers; socks are seen at 10:05, 18:00 and 18:01."""
    rows = [row(f"a{u}", f"u{u}", "shoes", at(FIRST, 10), u % 2, at(FIRST, 18) if u % 2 else None) for u in range(10)]
    for name, time in (("b", at(FIRST, 10, 5)), ("c", at(FIRST, 18)), ("d", at(FIRST, 18, 1))):
        rows += [row(f"{name}{u}", f"u{u}", "socks", time) for u in range(10)]
    write(folder / "impressions.parquet", rows)


@pytest.mark.parametrize(("log", "columns"), [({}, {"label_time": "bought"}), ({"label_delay_hours": 8}, {})])
def test_a_positive_is_a_behavior_from_when_its_label_was_known(
    spark: SparkSession, tmp_path: Path, log: Row, columns: Row
) -> None:
    purchases(tmp_path)
    samples, _ = join(spark, labeled(tmp_path, log, columns), FIRST, FIRST)
    histories = {s["impression_id"]: (s["behavior_item_id"], s["behavior_gap"]) for s in samples}
    for user in range(10):
        assert histories[f"a{user}"] == histories[f"b{user}"] == histories[f"c{user}"] == ([], [])
        # its own time is still that of the impression
        assert histories[f"d{user}"] == ((["shoes"], [8 * 3600.0 + 60]) if user % 2 else ([], []))


def test_a_label_that_is_known_at_once_counts_from_its_impression_on(spark: SparkSession, tmp_path: Path) -> None:
    purchases(tmp_path)
    samples, _ = join(spark, labeled(tmp_path, AT_ONCE), FIRST, FIRST)
    histories = {s["impression_id"]: s["behavior_item_id"] for s in samples}
    assert [len(histories[f"b{user}"]) for user in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("log", "columns", "words"),
    [
        ({}, {}, "label_delay_hours"),
        ({"label_delay_hours": 1}, {"label_time": "bought"}, "one of the two"),
        ({"label_delay_hours": 0, "behaviors": {"view": {"path": "x", "columns": EVENT}}}, {}, "leave it out"),
        ({"behaviors": {"view": {"path": "x", "columns": EVENT}}}, {"label_time": "bought"}, "leave it out"),
    ],
)
def test_a_labeled_log_says_when_its_labels_are_known(tmp_path: Path, log: Row, columns: Row, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        labeled(tmp_path, log, columns)


@pytest.mark.parametrize("name", ["label_ties", "label_delay_hours"])
def test_what_is_said_of_labels_is_of_labeled_logs(tmp_path: Path, name: str) -> None:
    value = {"label_ties": "max", "label_delay_hours": 1}[name]
    with pytest.raises(ValueError, match=f"{name} is of logs with labels"):
        config(tmp_path, {"kind": "impressions_and_clicks", name: value})


def test_a_label_time_that_cannot_be_breaks_a_rule_and_is_no_field(spark: SparkSession, tmp_path: Path) -> None:
    rows = [row(f"p{n}", "u", "i", at(FIRST, 10, n), 1, at(FIRST, 11)) for n in range(8)]
    rows[1]["bought"], rows[2]["bought"] = None, at(FIRST, 9)
    rows[3] |= {"bought": None, "label": 0}
    write(tmp_path / "impressions.parquet", rows)
    fields = {"candidate": {"item_id": {}}, "context": {"leak": {"expression": "hour(label_time)"}}}
    settings = labeled(tmp_path, {}, {"label_time": "bought"}, quality={"max_quarantined": 0.5}, fields=fields)
    events = EventLogs(spark, settings).read(FIRST, FIRST)
    broken = events.facts["log.impressions"].broken[FIRST]
    assert broken == {"label_time is null, and the label is 1": 1, "label_time lies before time": 1}
    with pytest.raises(LogError, match=r"fields.context.leak.*label_time"):
        all_rows(spark, settings, events)


# An impression that was delivered twice


def test_a_row_that_comes_again_with_label_1_makes_a_positive(spark: SparkSession, tmp_path: Path) -> None:
    rows = [row(f"p{n}", f"u{n % 7}", f"i{n % 9}", at(FIRST, 10, n % 60, n // 60)) for n in range(200)]
    write(tmp_path / "impressions.parquet", [*rows, *({**again, "label": 1} for again in rows[::12])])
    samples, _ = join(spark, labeled(tmp_path, AT_ONCE), FIRST, FIRST)
    assert {s["impression_id"]: s["label"] for s in samples} == {f"p{n}": int(n % 12 == 0) for n in range(200)}
    assert len(samples) == 200


def test_two_labels_of_an_impression_are_refused_where_it_is_said(spark: SparkSession, tmp_path: Path) -> None:
    rows = [row("p1", "u1", "i", at(FIRST, 10)), row("p1", "u1", "i", at(FIRST, 10), 1), row("p1", "u2", "i", at(FIRST, 10), 1)]
    write(tmp_path / "impressions.parquet", rows)
    with pytest.raises(LogError, match=r"label 0 and with label 1, such as 'p1' of user 'u1'; .*label_ties: max"):
        EventLogs(spark, labeled(tmp_path, {**AT_ONCE, "label_ties": "refuse"})).read(FIRST, FIRST)
    # another user's, or another day's, impression of that id is another one
    write(tmp_path / "impressions.parquet", [rows[0], rows[2], row("p1", "u1", "i", at(SECOND, 10), 1)])
    EventLogs(spark, labeled(tmp_path, {**AT_ONCE, "label_ties": "refuse"})).read(FIRST, SECOND)


# Ids that begin anew


CLICKED = {"kind": "impressions_and_clicks"}


def test_a_click_labels_the_latest_impression_of_its_id_alone(spark: SparkSession, tmp_path: Path) -> None:
    """Ids that begin anew each day: the click at 00:12 is of the impression of 00:11, not of the one an hour before."""
    evening = [row(str(n), "u", f"evening{n}", at(FIRST, 23, 10 + n)) for n in range(4)]
    night = [row(str(n), "u", f"night{n}", at(SECOND, 0, 10 + n)) for n in range(4)]
    write(tmp_path / "impressions.parquet", evening + night)
    clicks = [("1", at(SECOND, 0, 12)), ("0", at(SECOND, 0, 9)), ("2", at(SECOND, 0, 11))]
    write(tmp_path / "clicks.parquet", [row(name, "u", "any", time) for name, time in clicks], CLICKS)
    for days in ((FIRST, SECOND), (FIRST, FIRST), (SECOND, SECOND)):
        samples, _ = join(spark, config(tmp_path, CLICKED), *days)
        positive = {s["candidate_item_id"] for s in samples if s["label"]}
        expected = {FIRST: {"evening0", "evening2"}, SECOND: {"night1"}}
        assert positive == set().union(*(expected[day] for day in set(days)))


def test_a_click_after_the_window_of_its_latest_impression_labels_none(spark: SparkSession, tmp_path: Path) -> None:
    shown = [row("1", "u", "i", at(FIRST, 10)), row("1", "u", "j", at(SECOND, 0, 10))]
    write(tmp_path / "impressions.parquet", shown)
    write(tmp_path / "clicks.parquet", [row("1", "u", "i", at(SECOND, 1, 10))], CLICKS)
    samples, _ = join(spark, config(tmp_path, {**CLICKED, "attribution_hours": 1}), FIRST, SECOND)
    assert [s["label"] for s in samples] == [0, 0]
    samples, _ = join(spark, config(tmp_path, {**CLICKED, "attribution_hours": 1.1}), FIRST, SECOND)
    assert {s["candidate_item_id"]: s["label"] for s in samples} == {"i": 0, "j": 1}


def test_chance_differs_between_users_and_days_whose_ids_are_equal(spark: SparkSession, tmp_path: Path) -> None:
    """Ids are 0 to 19 within each user and day: of each number some are kept, about three tenths, and all files are filled."""
    rows = [
        row(str(n), f"u{u}", f"i{(7 * u + n) % 50}", at(day, 8 + u % 12, n, u % 60))
        for day in (FIRST, SECOND)
        for u in range(100)
        for n in range(20)
    ]
    write(tmp_path / "impressions.parquet", rows)
    settings = labeled(tmp_path, AT_ONCE, sampling={"negatives": 0.3, "splits": ["train", "test"]}, rows_per_file=50)
    samples, _ = join(spark, settings, FIRST, SECOND)
    for day in (FIRST, SECOND):
        kept = Counter(s["impression_id"] for s in samples if s["day"] == day)
        assert 530 < sum(kept.values()) < 670
        assert set(kept) == {str(n) for n in range(20)}
        assert max(kept.values()) < 50
        assert {s["file"] for s in samples if s["day"] == day} == set(range(12))
    pairs = {day: {(s["user_key"], s["impression_id"]) for s in samples if s["day"] == day} for day in (FIRST, SECOND)}
    assert len(pairs[FIRST] & pairs[SECOND]) < 250  # those of another day are drawn again


# When labels are final


def test_labels_are_final_once_a_click_came_after_the_whole_window(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "impressions.parquet", [row(f"p{n}", "u", f"i{n}", at(FIRST, 23, n)) for n in range(8)])
    clicks = [row("p0", "u", "i0", at(FIRST, 23, 30)), row("p1", "u", "i1", at(SECOND, 0, 5))]
    for hour, final in ((0, False), (10, False), (12, True)):
        write(tmp_path / "clicks.parquet", [*clicks, row("p2", "u", "i2", at(SECOND, hour))], CLICKS)
        contract = build_samples(spark, config(tmp_path, {**CLICKED, "attribution_hours": 12}), FIRST, FIRST).contract
        assert contract.days[0].final == final, hour
