"""What a team meets that builds its samples every night: new days, later training days, thinned negatives, days not final yet."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import Contract, ContractError, Publication, Split, read_contract
from pipeline.build import build_samples, plan_build
from pipeline.logs.errors import LogError
from tests.support.small_logs import DAYS, EVENT, config, write_logs

pytestmark = pytest.mark.spark


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_logs(tmp_path)
    return tmp_path


def splits(last_training_day: int) -> dict[str, Any]:
    test = {"first": DAYS[last_training_day + 1], "last": DAYS[last_training_day + 1]}
    return {"train": {"first": DAYS[0], "last": DAYS[last_training_day]}, "test": test}


def values(samples: str, contract: Contract, vocabulary: str) -> list[str]:
    path = contract.vocabulary(vocabulary).path
    assert path is not None
    return pq.read_table(Path(samples) / path)["value"].to_pylist()


def test_vocabularies_stay_when_training_days_are_added_and_grow_when_asked(spark: SparkSession, folder: Path) -> None:
    settings = config(folder, splits=splits(2), vocabularies={"item_id": {"min_count": 7}})
    first = build_samples(spark, settings, DAYS[0], DAYS[3]).contract
    known = values(settings.samples, first, "item_id")

    later = config(folder, splits=splits(4), vocabularies={"item_id": {"min_count": 7}})
    plan = plan_build(spark, later, DAYS[0], DAYS[5])
    assert [day.day for day in plan if day.reason] == [DAYS[3], DAYS[4], DAYS[5]]  # day 3 was held out and had raw examples
    frozen = build_samples(spark, later, DAYS[0], DAYS[5])
    assert list(frozen.built) == [DAYS[3], DAYS[4], DAYS[5]]
    assert frozen.contract.vocabularies == first.vocabularies
    assert frozen.contract.vocabulary_version == 1

    extended = build_samples(spark, later, DAYS[0], DAYS[5], extend_vocabularies=True)
    assert extended.built == ()
    grown = values(later.samples, extended.contract, "item_id")
    assert grown[: len(known)] == known
    assert len(grown) > len(known)
    assert extended.contract.vocabulary_version == 2
    assert extended.contract.vocabulary_days == (Split(first=DAYS[0], last=DAYS[4]),)
    assert extended.contract.reference == first.reference

    path = folder / "impressions" / f"day={DAYS[5]}" / "part-0.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
    again = build_samples(spark, later, DAYS[0], DAYS[5])
    # a click belongs to the latest impression, so the labels of a day depend on the next day's impressions
    assert [day.vocabulary_version for day in again.contract.days] == [1, 1, 1, 1, 2, 2]
    assert again.contract.vocabularies == extended.contract.vocabularies
    assert not Path(
        folder / "samples" / str(first.vocabulary("item_id").path)
    ).exists()  # named by none of the last two contracts


def test_vocabularies_are_made_anew_when_one_of_their_days_is_held_out_now(spark: SparkSession, folder: Path) -> None:
    before = build_samples(spark, config(folder, splits=splits(3)), DAYS[0], DAYS[4]).contract
    earlier = config(folder, splits=splits(1))
    plan = {day.day: (day.action, day.reason) for day in plan_build(spark, earlier, DAYS[0], DAYS[2])}
    why = "new generation: days that vocabularies were made from are held out now (2026-03-01 to 2026-03-04)"
    missing = ("missing", "published, and not asked for")
    assert plan == {**dict.fromkeys(DAYS[:3], ("build", why)), DAYS[3]: missing, DAYS[4]: missing}
    with pytest.raises(ContractError, match="2026-03-04 to 2026-03-05"):
        build_samples(spark, earlier, DAYS[0], DAYS[2])
    assert read_contract(earlier.samples) == before
    contract = build_samples(spark, earlier, DAYS[0], DAYS[2], drop_days=True).contract
    assert contract.vocabulary_days == (Split(first=DAYS[0], last=DAYS[1]),)
    assert [day.day for day in contract.days] == DAYS[:3]
    # every file of the generation before is there, and its ids are those of its own vocabularies
    for path, size in before.named_files.items():
        assert (folder / "samples" / path).stat().st_size == size


def test_negatives_are_thinned_in_training_days_and_the_contract_says_so(spark: SparkSession, folder: Path) -> None:
    whole = build_samples(spark, config(folder), DAYS[0], DAYS[-1]).contract
    thin = config(folder, sampling={"negatives": 0.4}, samples=str(folder / "thin"))
    contract = build_samples(spark, thin, DAYS[0], DAYS[-1]).contract
    assert contract.negatives_kept("train") == 0.4
    assert contract.negatives_kept("test") == 1.0
    assert [day.positives for day in contract.days] == [day.positives for day in whole.days]
    kept = sum(day.rows - day.positives for day in contract.split("train"))
    of = sum(day.rows - day.positives for day in whole.split("train"))
    assert 0.25 < kept / of < 0.55
    assert contract.split("test")[0].rows == whole.split("test")[0].rows
    # who is kept depends on the impression alone
    days = {f"day={day.day}" for day in whole.split("train")}
    ids = {name: {i for d in days for f in (folder / name / d).glob("part-*") for i in ids_of(f)} for name in ("samples", "thin")}
    assert ids["thin"] < ids["samples"]


def ids_of(path: Path) -> list[str]:
    return pq.read_table(path, partitioning=None)["impression_id"].to_pylist()


def test_a_day_is_final_when_there_are_clicks_after_its_attribution_window(spark: SparkSession, folder: Path) -> None:
    report = build_samples(spark, config(folder), DAYS[0], DAYS[-1])
    assert [day.final for day in report.contract.days] == [True] * 4 + [False] * 2
    log = config(folder).model_dump(by_alias=True, exclude_unset=True)["log"] | {"complete_to": DAYS[-1]}
    known = build_samples(spark, config(folder, log=log), DAYS[0], DAYS[-1])
    assert known.built == ()
    assert [day.final for day in known.contract.days] == [True] * 5 + [False]


def test_a_day_says_what_was_found_in_it(spark: SparkSession, folder: Path) -> None:
    path = folder / "impressions" / f"day={DAYS[5]}" / "part-0.parquet"
    table = pq.read_table(path, partitioning=None)
    wrong = table.slice(0, 1).set_column(0, "impression_id", pa.array([None], pa.string()))
    pq.write_table(pa.concat_tables([table, wrong, table.slice(3, 2)]), path)
    settings = config(folder, quality={"max_quarantined": 0.02})
    contract = build_samples(spark, settings, DAYS[0], DAYS[-1]).contract
    first, last = contract.days[0], contract.days[5]
    assert first.quality is not None
    assert last.quality is not None
    assert (first.quality.log_rows, first.quality.quarantined, first.quarantine) == (60, {}, None)
    assert last.quality.log_rows == 63
    assert last.quality.quarantined == {
        "log.impressions: a duplicate of another impression": 2,
        "log.impressions: impression_id is null or empty": 1,
    }
    assert last.quarantine is not None
    assert last.quarantine.rows == 3
    rejected = pq.read_table(Path(settings.samples) / last.quarantine.path, partitioning=None).to_pylist()
    assert sorted(row["reason"] for row in rejected) == [
        *["log.impressions: a duplicate of another impression"] * 2,
        "log.impressions: impression_id is null or empty",
    ]
    assert json.loads(rejected[-1]["row"])["user_id"] == table["user_id"][0].as_py()
    assert last.rows == 60
    # the last day has items of its own
    assert last.quality.unknown["candidate_item_id"] == 1.0
    assert last.quality.drift["candidate_item_id"] > 1
    assert first.quality.drift["context_device"] < 0.2
    assert last.statistics is not None
    counts = json.loads((Path(settings.samples) / last.statistics.path).read_text(encoding="utf-8"))
    assert (counts["rows"], counts["positives"]) == (60, last.positives)
    assert sum(counts["history_length"]) == 60
    assert sum(counts["columns"]["context_device"]["counts"]) == 60
    assert sum(counts["columns"]["context_device"]["positives"]) == last.positives
    lengths = sum(n * rows for n, rows in enumerate(counts["history_length"]))
    assert sum(counts["behavior_age_days"]) == sum(counts["columns"]["behavior_item_id"]["counts"]) == lengths


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        (
            {"max_unknown": {"candidate_item_id": 0.5}},
            ["candidate_item_id", "unknown ids or missing numbers is 1.0000", "max_unknown allows 0.5"],
        ),
        ({"max_drift": {"candidate_item_id": 3}}, ["candidate_item_id", "stability index", "max_drift allows 3"]),
    ],
)
def test_a_threshold_stops_the_build_before_anything_is_published(
    spark: SparkSession, folder: Path, quality: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(LogError) as caught:
        build_samples(spark, config(folder, quality=quality), DAYS[0], DAYS[-1])
    for word in [str(DAYS[5]), *words]:
        assert word in str(caught.value)
    assert not (folder / "samples" / "contract.json").exists()


def test_passes_of_a_few_days_publish_the_same_as_one(spark: SparkSession, folder: Path) -> None:
    together = build_samples(spark, config(folder), DAYS[0], DAYS[-1])
    shutil.move(folder / "samples", folder / "together")
    apart = build_samples(spark, config(folder, rows_per_pass=130), DAYS[0], DAYS[-1])
    assert apart.contract == read_contract(str(folder / "samples"))
    unpublished = {"publication": Publication()}
    assert apart.contract.model_copy(update=unpublished) == together.contract.model_copy(update=unpublished)


def test_labels_may_be_truths_or_text_and_are_no_field(spark: SparkSession, folder: Path) -> None:
    columns = {**EVENT, "device": "device", "bid": "bid"}
    source = {"path": str(folder / "impressions"), "day_column": "day"}
    built = []
    for label in ("clicked", "clicked = 1", "string(double(clicked))"):
        log = {"kind": "labeled", "impressions": {**source, "columns": {**columns, "label": label}}, "label_delay_hours": 0}
        settings = config(folder, log=log, samples=str(folder / label))
        contract = build_samples(spark, settings, DAYS[0], DAYS[1]).contract
        built.append([(day.rows, day.positives, [file.sha256 for file in day.files]) for day in contract.days])
    assert built[0] == built[1] == built[2]
    fields = config(folder).model_dump(exclude_unset=True)["fields"] | {"context": {"leak": {"expression": "string(label)"}}}
    with pytest.raises(LogError, match=r"fields.context.leak.*`label`"):
        build_samples(spark, config(folder, log=log, fields=fields), DAYS[0], DAYS[1])


def test_a_plan_names_days_reasons_and_rows_and_writes_nothing(spark: SparkSession, folder: Path) -> None:
    settings = config(folder)
    plan = plan_build(spark, settings, DAYS[1], DAYS[2])
    assert [(day.day, day.reason, day.rows) for day in plan] == [(DAYS[1], "missing", 60), (DAYS[2], "missing", 60)]
    assert not (folder / "samples").exists()
    build_samples(spark, settings, DAYS[1], DAYS[2])
    clicks = folder / "clicks" / f"day={DAYS[4]}" / "part-0.parquet"
    pq.write_table(pq.read_table(clicks, partitioning=None).slice(1), clicks)
    reasons = {day.day: day.reason for day in plan_build(spark, settings, DAYS[1], DAYS[3])}
    assert reasons == {DAYS[1]: "", DAYS[2]: "its logs changed", DAYS[3]: "missing"}
    changed = config(folder, seed=7)
    assert plan_build(spark, changed, DAYS[1], DAYS[1])[0].reason == "new generation: the configuration changed (seed)"
    rows = config(folder, rows_per_file=9)
    assert plan_build(spark, rows, DAYS[1], DAYS[1])[0].reason == "the configuration changed"
    assert dt.date(2026, 3, 1) == DAYS[0]
