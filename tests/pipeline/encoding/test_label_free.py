"""Logs of pure chance: nothing that is fitted on the training days may tell a label there."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import UNKNOWN_ID, Day, read_contract
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.support.small_logs import CLICKS, DAYS, EVENT, IMPRESSIONS, config, write_day

pytestmark = pytest.mark.spark

PER_DAY, ITEMS, USERS, RATE = 800, 3_000, 100, 0.3
#: Fields of the item, each with a vocabulary of its own that the behaviors share.
VOCABULARIES: dict[str, dict[str, Any]] = {
    "default": {},
    "three": {"min_count": 3},
    "capped": {"min_count": 1, "max_size": 600},
    "all": {"min_count": 1},
}
SHARED = {name: {"expression": "item_id", "vocabulary": name} for name in VOCABULARIES}
FIELDS = {"candidate": SHARED, "behaviors": {**SHARED, "done": {"expression": "item_id"}}}
Row = dict[str, Any]


def moment(day: dt.date, second: int) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(8), dt.timezone.utc) + dt.timedelta(seconds=second)


def write_logs(folder: Path) -> None:
    """Impressions that are clicked by chance: of any item, or, each second one, of the few that the user is shown again and again."""
    draw = random.Random(0)
    again = {user: [draw.randrange(ITEMS) for _ in range(12)] for user in range(USERS)}
    for day in DAYS:
        shown: list[Row] = []
        for n in range(PER_DAY):
            user = draw.randrange(USERS)
            item = draw.choice(again[user]) if n % 2 else draw.randrange(ITEMS)
            row = {"impression_id": f"{day}-{n}", "user_id": f"u{user}", "item_id": f"i{item}", "ts": moment(day, 40 * n)}
            shown.append(row | {"device": "phone", "clicked": int(draw.random() < RATE), "bid": draw.random()})
        write_day(folder / "impressions", day, shown, IMPRESSIONS)
        clicks = [{**row, "ts": row["ts"] + dt.timedelta(seconds=9)} for row in shown if row["clicked"]]
        write_day(folder / "clicks", day, [{name: row[name] for name in CLICKS.names} for row in clicks], CLICKS)


def settings(folder: Path, kind: str, **changes: Any) -> DataConfig:
    impressions: Row = {"path": str(folder / "impressions"), "columns": dict(EVENT), "day_column": "day"}
    log: Row = {"kind": kind, "impressions": impressions}
    if kind == "labeled":
        impressions["columns"]["label"] = "clicked"
        log["label_delay_hours"] = 0
    if kind == "impressions_and_clicks":
        log["clicks"] = {"path": str(folder / "clicks"), "columns": EVENT, "day_column": "day"}
    if kind == "positives_only":
        log["negatives"] = {"popularity": 1}
    values: Row = {
        "log": log,
        "items": None,
        "fields": FIELDS,
        "vocabularies": {name: options for name, options in VOCABULARIES.items() if options},
        "history": {"length": 30, "days": 29},
        "samples": str(folder / f"samples-{kind}"),
    }
    return config(folder, **(values | changes))


def built(spark: SparkSession, options: DataConfig, first: dt.date = DAYS[0]) -> dict[str, list[Row]]:
    """All samples by split."""
    build_samples(spark, options, first, DAYS[-1])
    contract = read_contract(options.samples)
    return {split: [row for day in contract.split(split) for row in rows_of(options, day)] for split in contract.splits}


def rows_of(options: DataConfig, day: Day) -> Iterator[Row]:
    for file in day.files:
        yield from pq.read_table(Path(options.samples) / file.path, partitioning=None).to_pylist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chance")
    write_logs(folder)
    return folder


@pytest.fixture(scope="module", params=["impressions_and_clicks", "labeled", "positives_only"])
def samples(request: pytest.FixtureRequest, spark: SparkSession, folder: Path) -> tuple[str, dict[str, list[Row]]]:
    return request.param, built(spark, settings(folder, request.param))


def rate(rows: list[Row]) -> float:
    return sum(row["label"] for row in rows) / len(rows)


def auc_of(flags: list[bool], labels: list[int]) -> float:
    """Of a score that is 0 or 1."""
    shares = [
        sum(flag for flag, label in zip(flags, labels, strict=True) if label == wanted) / labels.count(wanted)
        for wanted in (0, 1)
    ]
    return 0.5 + (shares[1] - shares[0]) / 2


@pytest.mark.parametrize("field", ["default", "three", "capped"])
def test_whether_a_candidate_is_known_does_not_tell_its_label(samples: tuple[str, dict[str, list[Row]]], field: str) -> None:
    _, by_split = samples
    train = by_split["train"]
    known = [row[f"candidate_{field}"] > UNKNOWN_ID for row in train]
    assert 0.1 < sum(known) / len(known) < 0.9
    assert auc_of(known, [row["label"] for row in train]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("field", ["default", "three", "capped"])
def test_unknown_candidates_are_clicked_as_often_as_others(samples: tuple[str, dict[str, list[Row]]], field: str) -> None:
    kind, by_split = samples
    for split, rows in by_split.items():
        unknown = [row for row in rows if row[f"candidate_{field}"] == UNKNOWN_ID]
        if kind == "positives_only" and split != "train":
            continue  # a negative is an item that had an event, a positive may be a new one: that is so whatever is fitted
        assert len(unknown) > 200
        assert rate(unknown) == pytest.approx(rate(rows), abs=0.06)


def test_whether_a_behavior_is_known_does_not_tell_the_label(samples: tuple[str, dict[str, list[Row]]]) -> None:
    """The vocabulary ``done`` is of behaviors alone. Where the candidate is one of them, a click on it is one more behavior."""
    kind, by_split = samples
    known, labels = [], []
    for row in by_split["train"]:
        if row["candidate_all"] in row["behavior_all"]:
            known.append(row["behavior_done"][row["behavior_all"].index(row["candidate_all"])] > UNKNOWN_ID)
            labels.append(row["label"])
    if kind == "positives_only":
        assert all(labels)  # what the user bought is no negative
        return
    assert len(labels) > 150
    assert auc_of(known, labels) == pytest.approx(0.5, abs=0.1)


def gap(rows: list[Row]) -> float:
    """By how much known candidates are clicked more often than unknown ones."""
    known, unknown = ([row for row in rows if (row["candidate_default"] > UNKNOWN_ID) is wanted] for wanted in (True, False))
    assert min(len(known), len(unknown)) > 100
    return rate(known) - rate(unknown)


def spans(**days: tuple[int, int]) -> Row:
    return {name: {"first": DAYS[first], "last": DAYS[last]} for name, (first, last) in days.items()}


SHORT = {"history": {"length": 30, "days": 3}}


def test_training_days_that_are_built_again_with_extended_vocabularies(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)
    before = settings(tmp_path, "impressions_and_clicks", **SHORT, splits=spans(train=(0, 1), validation=(2, 2), test=(3, 3)))
    build_samples(spark, before, DAYS[0], DAYS[3])
    after = settings(tmp_path, "impressions_and_clicks", **SHORT, splits=spans(train=(0, 3), validation=(4, 4), test=(5, 5)))
    build_samples(spark, after, DAYS[0], DAYS[5], extend_vocabularies=True)
    late = next((tmp_path / "clicks" / f"day={DAYS[1]}").glob("*.parquet"))
    clicks = pq.read_table(late, partitioning=None)
    pq.write_table(clicks.slice(0, clicks.num_rows - 1), late)
    report = build_samples(spark, after, DAYS[0], DAYS[5])
    assert {DAYS[0], DAYS[1]} <= set(report.built)
    rows = [row for day in report.contract.days[:2] for row in rows_of(after, day)]
    assert gap(rows) == pytest.approx(0.0, abs=0.08)


def test_days_with_samples_before_the_training_days(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)
    splits = spans(validation=(1, 2), train=(3, 4), test=(5, 5))
    chance = settings(tmp_path, "impressions_and_clicks", **SHORT, splits=splits)
    by_split = built(spark, chance, DAYS[1])
    for rows in by_split.values():
        assert gap(rows) == pytest.approx(0.0, abs=0.12)
    assert [f for f in audit(spark, chance, rows=50).findings if f.kind in ("vocabulary", "leak")] == []


def test_training_days_that_begin_earlier_make_a_new_generation(spark: SparkSession, tmp_path: Path) -> None:
    write_logs(tmp_path)
    late = settings(tmp_path, "impressions_and_clicks", **SHORT, splits=spans(train=(3, 3), test=(4, 4)))
    assert build_samples(spark, late, DAYS[3], DAYS[4]).contract.publication.generation == 1
    early = settings(tmp_path, "impressions_and_clicks", **SHORT, splits=spans(train=(1, 3), test=(4, 4)))
    contract = build_samples(spark, early, DAYS[1], DAYS[4]).contract
    assert contract.publication.generation == 2
    assert gap([row for day in contract.days[:3] for row in rows_of(early, day)]) == pytest.approx(0.0, abs=0.08)
