"""A world's folder: whole or absent, never replaced by accident."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession

from pipeline.config.simulation import SimulateConfig
from pipeline.simulate import world_folder
from pipeline.simulate.summary import Summary
from pipeline.simulate.world_folder import RECORD_FILE, SimulateError, record_of
from pipeline.simulate.write import simulate_logs


def config_of(folder: Path, **values: object) -> SimulateConfig:
    return SimulateConfig.model_validate(
        {"output": str(folder), "impressions": 1_000, "first_day": "2026-01-01", "last_day": "2026-01-02"} | values
    )


@pytest.mark.spark
def test_a_world_is_written_once_and_replaced_only_on_request(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    partial = tmp_path / "logs.partial"
    partial.mkdir()
    (partial / "left-by-a-run-that-was-killed").touch()

    record = simulate_logs(spark, config_of(folder))
    assert {path.name for path in folder.iterdir()} == {"impressions", "clicks", "users", "items", "truth", RECORD_FILE}
    assert not partial.exists()
    assert json.loads((folder / RECORD_FILE).read_text())["config"]["users"] == 50
    assert record.summary.rows["truth"] == 1_000
    assert 0.5 < record.summary.best_auc < 1.0

    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert simulate_logs(spark, config_of(folder)) == record
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files

    with pytest.raises(SimulateError, match=r"another world \(seed 0 is now 1\).*--overwrite"):
        simulate_logs(spark, config_of(folder, seed=1))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files

    other = simulate_logs(spark, config_of(folder, seed=1), overwrite=True)
    assert other.fingerprint != record.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


@pytest.mark.spark
def test_a_folder_that_is_no_world_is_never_touched(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SimulateError, match="is no simulated world"):
        simulate_logs(spark, config_of(tmp_path), overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_sizes_follow_from_the_number_of_impressions(tmp_path: Path) -> None:
    demo = config_of(tmp_path, impressions=600_000)
    assert (demo.user_count, demo.item_count, demo.brand_count) == (5_000, 3_098, 155)
    assert config_of(tmp_path, impressions=100_000_000).user_count == 833_333
    assert config_of(tmp_path).item_count == 200
    assert config_of(tmp_path, users=77).user_count == 77


def test_days_must_be_in_order(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="is before first_day"):
        config_of(tmp_path, last_day=dt.date(2025, 1, 1))


def test_another_number_of_categories_is_another_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = Summary.model_construct()
    before = record_of(config_of(tmp_path), summary).fingerprint
    monkeypatch.setattr(world_folder, "CATEGORIES", world_folder.CATEGORIES + 1)
    assert record_of(config_of(tmp_path), summary).fingerprint != before
