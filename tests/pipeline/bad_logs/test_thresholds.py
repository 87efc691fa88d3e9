"""A day that passes a threshold is not published."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.support.broken_shop import (
    DAYS,
    Built,
    Refusals,
    Row,
    Shop,
    files,
    good_rows,
)

pytestmark = pytest.mark.spark


# Days that pass a threshold


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with its first day built. The second has rows twice, unknown items, and devices that are new."""
    shop = Shop(tmp_path_factory.mktemp("trained"))
    shop.parquet(DAYS[0])
    rows = [{**row, "device": "television"} for row in good_rows(DAYS[1])]
    shop.parquet(DAYS[1], [*rows, *rows[:3], {**rows[0], "impression_id": "new", "item_id": "i9"}])
    names = [f"i{n}" for n in range(5)]
    pq.write_table(pa.table({"item_id": names, "category": names}), shop.folder / "items.parquet")
    build_samples(spark, limited(shop), DAYS[0], DAYS[0])
    return shop


def limited(shop: Shop, samples: Path | None = None, **quality: Any) -> DataConfig:
    columns = {"item_id": "item_id", "category": "category"}
    items = {"path": str(shop.folder / "items.parquet"), "columns": columns, "missing": "quarantine"}
    changes = {"items": items, "quality": {"max_quarantined": 0.2, "max_duplicates": 0.5} | quality}
    return shop.config(changes=changes | {"samples": str(samples or shop.samples)})


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        ({"max_duplicates": 0.1}, ["3 of 16 of the impressions are duplicates", "quality.max_duplicates allows 0.1"]),
        ({"max_quarantined": 0.01}, ["1 of 16 of the impressions break a rule", "nothing is known of it in items: 1"]),
        (
            {"max_unknown": {"context_device": 0.5}},
            ["context_device: share of unknown ids or missing numbers is 1.0", "max_unknown allows 0.5"],
        ),
        ({"max_drift": {"context_device": 0.25}}, ["context_device: population stability index", "max_drift allows 0.25"]),
    ],
)
def test_a_day_over_a_threshold_is_not_published(trained: Shop, log: Refusals, quality: Row, words: list[str]) -> None:
    shutil.copytree(trained.samples, log.samples)
    sentence = log.sentence(limited(trained, log.samples, **quality), first=DAYS[1])
    for word in (str(DAYS[1]), *words):
        assert word in sentence
    before = files(trained.samples)
    assert before["contract.json"] == files(log.samples)["contract.json"]
    assert before.items() <= files(log.samples).items()


def test_a_day_over_a_threshold_leaves_no_file_behind(trained: Shop, log: Refusals) -> None:
    shutil.copytree(trained.samples, log.samples)
    log.refused_with(limited(trained, log.samples, max_duplicates=0.1), "duplicates", first=DAYS[1])


def test_a_day_under_the_thresholds_is_published(spark: SparkSession, trained: Shop, tmp_path: Path) -> None:
    shutil.copytree(trained.samples, tmp_path / "samples")
    quality = {"max_unknown": {"context_device": 1.0, "candidate_item_id": 0.1}, "max_drift": {"candidate_item_id": 1.0}}
    contract = build_samples(spark, limited(trained, tmp_path / "samples", **quality), DAYS[1], DAYS[1]).contract
    built = Built(tmp_path / "samples", contract)
    reasons = built.reasons(DAYS[1])
    assert reasons.pop("new") == "log.impressions: nothing is known of it in items"
    assert set(reasons.values()) == {"log.impressions: a duplicate of another impression"}
    assert built.ids(DAYS[1]) == sorted(row["impression_id"] for row in good_rows(DAYS[1]))


@pytest.mark.parametrize("empty_days", [[DAYS[1]], "any"])
def test_a_day_known_to_be_empty_is_a_day_of_no_rows(spark: SparkSession, log: Refusals, empty_days: Any) -> None:
    log.parquet(DAYS[0])
    source = log.config().log.impressions.model_dump(by_alias=True, exclude_unset=True)
    config = log.config(
        changes={"log": {"kind": "labeled", "impressions": source, "label_delay_hours": 0, "empty_days": empty_days}}
    )
    assert [day.rows for day in build_samples(spark, config, *DAYS).contract.days] == [12, 0]
