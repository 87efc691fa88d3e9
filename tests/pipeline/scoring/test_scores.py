"""Candidates get the scores that evaluation gives to samples of the same logs, however they are computed and spread."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs import evaluate
from tests.factories import make_model, write_servable
from tests.pipeline.scoring.conftest import MOMENT, model_of, read, score
from tests.support.candidate_logs import DAYS, OPTIONS, SHOWN, Shop, build_shop


def evaluated(shop: Shop, folder: Path) -> pd.Series:
    """What ``jobs/evaluate.py`` gives to the samples of the days that have candidates."""
    parts = []
    for split in ("validation", "test"):
        path = folder / f"{split}.parquet"
        arguments = ["--model", str(shop.model), "--samples", shop.config.samples, "--split", split]
        assert evaluate.main([*arguments, "--predictions", str(path)]) == 0
        parts.append(pd.read_parquet(path))
    return pd.concat(parts).set_index("impression_id")["probability"].sort_index()


def part_files(output: Path) -> dict[str, str]:
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("day=*/*"))
    }


@pytest.fixture(scope="module")
def scores(spark: SparkSession, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scores") / "out"
    assert score(spark, shop, output).scored == tuple(DAYS[-2:])
    return output


def test_each_candidate_has_the_score_that_evaluation_gives_to_its_sample(shop: Shop, scores: Path, tmp_path: Path) -> None:
    found, expected = read(scores)["score"], evaluated(shop, tmp_path)
    assert list(found.index) == list(expected.index)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found.std() > 0.01, "scores tell rows apart"
    files = [file for day in shop.contract.days if day.day in DAYS[-2:] for file in day.files]
    samples = pa.concat_tables(pq.read_table(f"{shop.config.samples}/{file.path}", partitioning=None) for file in files)
    assert 5 < np.sum(samples["behavior_length"].to_numpy() == 0) < len(found) - 5
    for column in ("candidate_item_id", "candidate_category", "user_age", "context_device"):
        assert 0 < np.sum(samples[column].to_numpy() == 1) < len(found), f"{column}: some are unknown or missing"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["labels", "lists"])
def test_so_it_is_where_histories_come_from_the_impressions(spark: SparkSession, pages: Path, tmp_path: Path, kind: str) -> None:
    shop = build_shop(spark, pages, kind)
    score(spark, shop, tmp_path / "out")
    found, expected = read(tmp_path / "out")["score"], evaluated(shop, tmp_path)
    assert list(found.index) == list(expected.index)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_row_keeps_its_keys_and_says_by_which_model_and_when_it_was_scored(shop: Shop, scores: Path) -> None:
    shown = pq.read_table(shop.candidates, schema=SHOWN).to_pandas().set_index("impression_id").sort_index()
    found = read(scores)
    assert list(found.index) == list(shown.index)
    for column, raw in (("user_id", "user_id"), ("item_id", "item_id"), ("time", "ts")):
        assert list(found[column]) == list(shown[raw])
    assert set(found["model_version"]) == {"mian/3"}
    assert set(found["scored_at"]) == {pd.Timestamp(MOMENT)}
    assert set(found["day"].astype(str)) == {str(day) for day in DAYS[-2:]}
    schema = pq.read_schema(next(scores.glob("day=*/part-*")))
    assert schema.field("score").type == pa.float64()
    assert schema.field("time").type == schema.field("scored_at").type == pa.timestamp("us", tz="UTC")


def test_the_manifest_names_all_files_with_their_checksums(scores: Path) -> None:
    manifest = json.loads((scores / "_manifest.json").read_text())
    named = {file["path"]: file["sha256"] for day in manifest["days"] for file in day["files"]}
    assert named == part_files(scores)
    assert len(named) > 4
    for path in named:
        assert pq.ParquetFile(scores / path).metadata.num_row_groups == 1
        rows = pq.read_table(scores / path, partitioning=None).to_pandas()
        assert rows.equals(rows.sort_values(["time", "user_id", "impression_id"]))


def test_whole_rows_have_the_scores_of_rows_of_a_user(spark: SparkSession, shop: Shop, scores: Path, tmp_path: Path) -> None:
    for smallest in (0, 1):
        score(spark, shop, tmp_path / str(smallest), smallest_group=smallest)
        pd.testing.assert_frame_equal(read(tmp_path / str(smallest)), read(scores), check_exact=False, rtol=0, atol=1e-6)


@pytest.mark.long
def test_files_do_not_depend_on_how_the_logs_and_the_work_are_spread(
    spark: SparkSession, shop: Shop, scores: Path, tmp_path: Path
) -> None:
    for path in shop.candidates.glob("day=*/*"):
        target = tmp_path / "candidates" / path.parent.name
        target.mkdir(parents=True)
        rows = pq.read_table(path, partitioning=None)
        rows = rows.take(np.random.default_rng(0).permutation(rows.num_rows))
        for part in range(3):
            pq.write_table(rows.slice(part * rows.num_rows // 3, rows.num_rows // 3 + 2), target / f"{part}.parquet")
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        # the last two rows of a part are there twice, which is a rule broken, and no other row
        quality = shop.config.quality.model_copy(update={"max_duplicates": 0.5})
        spread = Shop(shop.folder, shop.config.model_copy(update={"quality": quality}), shop.contract, shop.model)
        score(spark, spread, tmp_path / "out", impressions=str(tmp_path / "candidates"))
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    frames = [read(folder).drop(columns="day") for folder in (tmp_path / "out", scores)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_the_bytes_are_the_same_each_time(spark: SparkSession, shop: Shop, scores: Path, tmp_path: Path) -> None:
    score(spark, shop, tmp_path / "out")
    assert part_files(tmp_path / "out") == part_files(scores)
    assert (tmp_path / "out" / "_manifest.json").read_bytes() == (scores / "_manifest.json").read_bytes()


def test_rows_that_break_a_rule_lie_in_the_quarantine_and_all_others_are_scored(
    spark: SparkSession, shop: Shop, tmp_path: Path
) -> None:
    day = DAYS[-1]
    rows = pq.read_table(shop.candidates / f"day={day}" / "part-0.parquet", partitioning=None).to_pylist()
    rows[0]["user_id"] = None
    rows[1]["ts"] = None
    rows[2]["ts"] = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    rows[3]["item_id"] = ""
    rows.append(rows[4])
    target = tmp_path / "candidates" / f"day={day}"
    target.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, SHOWN.remove(SHOWN.get_field_index("clicked"))), target / "part-0.parquet")
    quality = shop.config.quality.model_copy(update={"max_quarantined": 0.5})
    lenient = Shop(shop.folder, shop.config.model_copy(update={"quality": quality}), shop.contract, shop.model)
    report = score(spark, lenient, tmp_path / "out", impressions=str(tmp_path / "candidates"))
    (scored,) = report.manifest.days
    assert scored.rows == len(rows) - 5
    assert scored.quarantined == {
        "log.impressions: a duplicate of another impression": 1,
        "log.impressions: item_id is null or empty": 1,
        "log.impressions: time is null": 1,
        "log.impressions: time lies outside the years 1990 to 2100": 1,
        "log.impressions: user_id is null or empty": 1,
    }
    assert list(read(tmp_path / "out").index) == sorted(row["impression_id"] for row in rows[4:-1])
    assert scored.quarantine is not None
    assert pq.read_table(tmp_path / "out" / scored.quarantine.path, partitioning=None).num_rows == 5


@pytest.mark.long
def test_days_between_two_others_that_have_no_candidates_are_none(spark: SparkSession, shop: Shop, tmp_path: Path) -> None:
    for day in (DAYS[2], DAYS[5]):
        target = tmp_path / "candidates" / f"day={day}"
        target.mkdir(parents=True)
        pq.write_table(
            pq.read_table(shop.folder / f"impressions/day={day}/part-0.parquet", partitioning=None), target / "p.parquet"
        )
    impressions = str(tmp_path / "candidates")
    assert score(spark, shop, tmp_path / "out", impressions=impressions).scored == (DAYS[2], DAYS[5])
    assert score(spark, shop, tmp_path / "some", impressions=impressions, first=DAYS[3]).scored == (DAYS[5],)
    assert score(spark, shop, tmp_path / "others", impressions=impressions, last=DAYS[3]).scored == (DAYS[2],)


@pytest.mark.long
def test_models_of_one_session_are_kept_apart(spark: SparkSession, shop: Shop, scores: Path, tmp_path: Path) -> None:
    other = make_model(shop.contract, options=OPTIONS, seed=1)
    folder = write_servable(tmp_path / "model", other, shop.contract, shop.config.samples, options=OPTIONS)
    score(spark, shop, tmp_path / "other", model_of(folder))
    assert (read(tmp_path / "other")["score"] - read(scores)["score"]).abs().max() > 0.01
    score(spark, shop, tmp_path / "again")
    assert part_files(tmp_path / "again") == part_files(scores)
