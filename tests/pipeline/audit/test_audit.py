"""An audit passes on what was built honestly, and names what is wrong with what was not."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import CONTRACT_FILE, read_contract
from pipeline.audit import Report, audit
from pipeline.audit.indicators import collect_indicators
from pipeline.audit.published_samples import read_published
from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.factories import rewrite, write_contract
from tests.support import audited_shop as shop
from tests.support.log_worlds import FIRST, Worlds
from tests.support.oracle import Rules
from tests.support.small_logs import DAYS

pytestmark = pytest.mark.spark

ALL_RULES = Rules(by_item=True, previous_day=True, lag=dt.timedelta(hours=6), arrivals=True, max_age=dt.timedelta(days=12))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    shop.write_logs(folder)
    return folder


@pytest.fixture(scope="module")
def honest(spark: SparkSession, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples that are what the logs say."""
    samples = tmp_path_factory.mktemp("honest") / "samples"
    build_samples(spark, shop.data_config(logs, samples), DAYS[0], DAYS[-1])
    return samples


@pytest.fixture(scope="module")
def spoiled(spark: SparkSession, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configuration that samples were built with which is wrong in four ways."""
    wrong = shop.config(
        logs,
        tmp_path_factory.mktemp("spoiled") / "samples",
        log=shop.log(logs, attribution_hours=48, clicks=shop.clicks_an_hour_early(logs)),
        users=shop.users_a_day_early(logs),
        quality={"max_early_clicks": 1},
        splits={"train": {"first": str(DAYS[0]), "last": str(DAYS[-1])}},
        sampling={},
    )
    build_samples(spark, DataConfig.model_validate(wrong), DAYS[0], DAYS[-1])
    return wrong


@pytest.fixture
def audited(spark: SparkSession, spoiled: dict[str, Any]) -> Callable[..., Report]:
    """Audits the spoiled samples by their own configuration with some keys set right: so only these are found."""

    def audit_by(**right: Any) -> Report:
        return audit(spark, DataConfig.model_validate(spoiled | right), rows=30)

    return audit_by


def kinds(report: Report) -> set[str]:
    return {finding.kind for finding in report.findings}


def rewritten(samples: Path, day: dt.date, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a day's first file, and its checksum in the contract."""
    contract = read_contract(str(samples))
    (path, *_) = (file.path for of in contract.days for file in of.files if of.day == day)

    def changed(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        change(rows)
        return pa.Table.from_pylist(rows, table.schema)

    rewrite(samples, contract, path, changed)


def test_honest_samples_pass(spark: SparkSession, logs: Path, honest: Path) -> None:
    report = audit(spark, shop.data_config(logs, honest), rows=60)
    assert report.findings == []
    assert report.notes == []
    assert "transforms fitted again: 1" in report.text()
    assert "counts of values: 6 of these vocabularies" in report.text()
    assert report.text().endswith("nothing found")


def test_honest_samples_of_generated_worlds_pass(spark: SparkSession, tmp_path: Path) -> None:
    worlds = Worlds(30, ALL_RULES, several_actions=True)
    worlds.write(tmp_path)
    days = {"first": FIRST, "last": FIRST + dt.timedelta(days=4)}
    quality = {"max_duplicates": 1, "max_early_clicks": 1}
    config = DataConfig.model_validate({**worlds.config(tmp_path), "quality": quality, "splits": {"train": days}})
    build_samples(spark, config, days["first"], days["last"])
    report = audit(spark, config, rows=150)
    assert report.findings == []


def test_honest_samples_of_a_labeled_log_pass_and_quarantined_rows_are_not_missed(
    spark: SparkSession, logs: Path, tmp_path: Path
) -> None:
    columns = {**shop.EVENT, "device": "device", "bid": "bid", "label": "clicked"}
    source = {"path": str(logs / "impressions"), "columns": columns, "day_column": "day"}
    log = {"kind": "labeled", "impressions": source, "label_delay_hours": 30}
    users = shop.config(logs, tmp_path)["users"] | {"missing": "quarantine"}
    fields = shop.config(logs, tmp_path)["fields"]
    fields["user"]["mood"] = {"expression": "concat(device, mood)"}  # of the impression and of the user
    quality = {"max_quarantined": 0.5}
    config = shop.data_config(logs, tmp_path / "samples", log=log, users=users, fields=fields, quality=quality)
    build_samples(spark, config, DAYS[0], DAYS[-1])
    assert audit(spark, config, rows=60).findings == []


def test_honest_samples_with_drawn_negatives_pass_and_bought_negatives_do_not(
    spark: SparkSession, logs: Path, tmp_path: Path
) -> None:
    log = {
        "kind": "positives_only",
        "impressions": {"path": str(logs / "clicks"), "columns": shop.EVENT, "day_column": "day"},
        "negatives": {"uniform": 2, "popularity": 1},
    }
    shelves = [{"item_id": f"i{n}", "weekday": w, "shelf": f"s{n * w % 4}"} for n in range(20) for w in range(7)]
    pq.write_table(pa.Table.from_pylist(shelves), tmp_path / "shelves.parquet")
    lookup = {
        "path": str(tmp_path / "shelves.parquet"),
        "keys": ["item_id", "weekday"],
        "columns": {c: c for c in ("item_id", "weekday", "shelf")},
    }
    log["impressions"]["columns"] = {**shop.EVENT, "weekday": "weekday(ts)"}
    fields = shop.config(logs, tmp_path)["fields"] | {"context": {"shelf": {}, "weekday": {}}}
    samples = tmp_path / "samples"
    config = shop.data_config(logs, samples, log=log, lookups=[lookup], fields=fields)
    build_samples(spark, config, DAYS[0], DAYS[-1])
    assert audit(spark, config, rows=60).findings == []

    def spoil(rows: list[dict[str, Any]]) -> None:
        positives = {row["impression_id"]: row for row in rows if row["label"]}
        for row in rows:
            positive = positives.get(row["impression_id"].split("#")[0])
            if not row["label"] and positive is not None:
                row.update({c: positive[c] for c in ("candidate_item_id", "candidate_category", "context_shelf")})

    rewritten(samples, DAYS[2], spoil)
    found = audit(spark, config, rows=300).findings
    assert {finding.kind for finding in found} == {"negative"}
    assert {finding.day for finding in found} == {str(DAYS[2])}
    assert "that the user has an event with 'i" in found[0].logs


def test_a_category_that_is_unknown_where_nobody_clicked(spark: SparkSession, logs: Path, honest: Path, tmp_path: Path) -> None:
    shutil.copytree(honest, tmp_path / "samples")

    def spoil(rows: list[dict[str, Any]]) -> None:
        for row in rows[::2]:
            row["candidate_category"] = row["candidate_category"] if row["label"] else 1
            row["behavior_item_id"] = [1] * row["behavior_length"] + row["behavior_item_id"][row["behavior_length"] :]

    for day in DAYS[:4]:
        rewritten(tmp_path / "samples", day, spoil)
    report = audit(spark, shop.data_config(logs, tmp_path / "samples"), rows=1)
    assert {finding.column for finding in report.found("leak")} == {"candidate_category"}
    assert ", 0 of them with label 1" in report.text()
    assert "what is missing, unknown or short beside the label: " in report.text()
    contract = read_contract(str(tmp_path / "samples"))
    files = [tmp_path / "samples" / file.path for day in contract.days for file in day.files]
    held = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    lacking = collect_indicators(
        read_published(spark, str(tmp_path / "samples"))[0], shop.data_config(logs, tmp_path / "samples")
    )
    counts = {(i.column, i.words): int(i.on.sum()) for i in lacking.indicators}
    assert len(lacking.labels) == len(held) and lacking.labels.sum() == sum(row["label"] for row in held)
    assert counts["candidate_category", "unknown or missing"] == sum(row["candidate_category"] == 1 for row in held)
    assert counts["behavior_length", "an empty history"] == sum(row["behavior_length"] == 0 for row in held)
    assert counts["behavior_length", "a full history"] == sum(row["behavior_length"] == 5 for row in held)
    half = sum(2 * row["behavior_item_id"].count(1) >= row["behavior_length"] > 0 for row in held)
    assert counts["behavior_item_id", "unknown in half of the behaviors or more"] == half


def test_a_future_click_among_the_behaviors(spark: SparkSession, logs: Path, honest: Path, tmp_path: Path) -> None:
    shutil.copytree(honest, tmp_path / "samples")
    spoiled = []

    def spoil(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            own, length = row["candidate_item_id"], row["behavior_length"]
            if row["label"] and length < 5 and own > 1 and own not in row["behavior_item_id"]:
                # the click that makes the label comes nine seconds after the impression
                row["behavior_item_id"] = [own, *row["behavior_item_id"][:-1]]
                row["behavior_category"] = [row["candidate_category"], *row["behavior_category"][:-1]]
                row["behavior_gap"] = [2, *row["behavior_gap"][:-1]]
                row["behavior_length"] = length + 1
                spoiled.append(row["impression_id"])
                return

    rewritten(tmp_path / "samples", DAYS[2], spoil)
    report = audit(spark, shop.data_config(logs, tmp_path / "samples"), rows=1)
    (future,) = report.found("future behavior")
    assert [future.impression_id] == spoiled
    assert (future.day, future.column) == (str(DAYS[2]), "behavior 0")
    assert "item_id" in future.samples and "('i" in future.samples
    assert "one at or after it, known from 2026-03-03 " in future.logs
    assert f"  {DAYS[2]}  {spoiled[0]}  behavior 0: the samples hold" in report.text()


def test_a_shifted_clock(audited: Callable[..., Report], logs: Path) -> None:
    report = audited(log=shop.log(logs, attribution_hours=48))
    assert {"label", "future behavior"} <= kinds(report)
    assert all(finding.samples.startswith("0") for finding in report.found("label") if finding.samples)
    assert "a click of it within 48 h after it" in report.found("label")[0].logs
    assert report.notes[0] == "the contract is of another configuration; what follows goes by the rules of the configuration file"
    assert any("2026-03-06 were not final when they were built" in note for note in report.notes)


def test_a_vocabulary_made_from_all_days(audited: Callable[..., Report]) -> None:
    report = audited(splits=shop.SPLITS)
    assert kinds(report) == {"vocabulary", "transform"}
    said = report.text()
    assert "the logs say split test from 2026-03-06 to 2026-03-06, which is held out" in said
    assert "the value 'i100'" in said or "the value 'i101'" in said
    assert "that it first occurs on 2026-03-06; the vocabulary is of 2026-03-01 to 2026-03-04" in said
    assert [finding.column for finding in report.found("transform")] == ["context_bid"]


def test_a_label_outside_its_window(audited: Callable[..., Report], logs: Path) -> None:
    report = audited(log=shop.log(logs, clicks=shop.clicks_an_hour_early(logs)))
    assert kinds(report) == {"label"}
    assert {finding.day for finding in report.findings} == {str(DAYS[1])}
    finding = report.findings[-1]
    assert finding.samples == "1"
    assert finding.logs.startswith("no click of it within 24 h after it, at 2026-03-02 ")
    assert "; a click of it came at 2026-03-0" in finding.logs


def test_a_profile_from_tomorrow(audited: Callable[..., Report], logs: Path) -> None:
    report = audited(users=shop.config(logs, logs)["users"])
    assert kinds(report) == {"value", "vocabulary"}
    wrong = report.found("value")
    assert {finding.column for finding in wrong} == {"user_mood"}
    assert any(
        "a row of users known from 2026-03-" in finding.logs and "not before the impression" in finding.logs for finding in wrong
    )


def test_files_that_were_changed_later(spark: SparkSession, logs: Path, honest: Path, tmp_path: Path) -> None:
    shutil.copytree(honest, tmp_path / "samples")
    contract = read_contract(str(tmp_path / "samples"))
    name = contract.days[1].files[0].path
    pq.write_table(pq.read_table(tmp_path / "samples" / name, partitioning=None), tmp_path / "samples" / name, compression="gzip")
    # a vocabulary that has a word of the test days, and a contract that says it is of the training days
    vocabulary = contract.vocabulary("item_id")
    path = tmp_path / "samples" / str(vocabulary.path)
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, pa.table({"value": ["i107"], "count": [9]}, table.schema)]), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    grown = vocabulary.model_copy(update={"size": vocabulary.size + 1, "sha256": sha256})
    vocabularies = tuple(grown if v.name == "item_id" else v for v in contract.vocabularies)
    text = contract.model_copy(update={"vocabularies": vocabularies}).to_json()
    (tmp_path / "samples" / CONTRACT_FILE).write_text(text)

    report = audit(spark, shop.data_config(logs, tmp_path / "samples"), rows=1)
    (changed,) = report.found("file")
    assert changed.day == str(DAYS[1])
    assert name in changed.samples
    (word,) = report.found("vocabulary")
    assert (word.column, word.samples) == ("item_id", "the value 'i107'")
    assert "first occurs on 2026-03-06" in word.logs
    assert kinds(report) - {"value"} == {"file", "vocabulary"}


def test_a_vocabulary_that_counts_clicks_beside_impressions(
    spark: SparkSession, logs: Path, honest: Path, tmp_path: Path
) -> None:
    """As an earlier release counted: an item that is shown once then has an id if and only if it was clicked."""
    samples = tmp_path / "samples"
    shutil.copytree(honest, samples)
    contract = read_contract(str(samples))
    vocabulary = contract.vocabulary("item_id")
    path = samples / str(vocabulary.path)
    table = pq.read_table(path)
    days = [logs / "clicks" / f"day={day}" for day in DAYS[:4]]
    clicked = [item for day in days for item in pq.read_table(day, partitioning=None)["item_id"].to_pylist()]
    counts = [n + clicked.count(item) for item, n in zip(*(table[c].to_pylist() for c in ("value", "count")), strict=True)]
    pq.write_table(table.set_column(1, "count", pa.array(counts)), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    others = tuple(v.model_copy(update={"sha256": sha256}) if v == vocabulary else v for v in contract.vocabularies)
    write_contract(samples, contract.model_copy(update={"vocabularies": others}))
    report = audit(spark, shop.data_config(logs, samples), rows=1)
    assert kinds(report) == {"vocabulary"}
    assert {finding.column for finding in report.findings} == {"item_id"}
