"""Candidates get the scores that evaluation gives to samples of the same logs, however they are computed and spread."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from jobs import evaluate
from mian.serving.batch_scorer import load_batch_scorer
from mian.serving.servable import servable_digest, servable_files
from pipeline.scoring.run import ScoringReport, ScoringRequest, score_days
from pipeline.scoring.scorer import ScoringModel
from tests.support.candidate_logs import DAYS, Shop, build_shop

MOMENT = dt.datetime(2026, 3, 7, 4, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build_shop(spark, tmp_path_factory.mktemp("shop"))


def model_of(folder: Path, version: str = "mian/3") -> ScoringModel:
    return ScoringModel(str(folder), servable_files(folder), version, servable_digest(folder), load_batch_scorer)


def score(spark: SparkSession, shop: Shop, output: Path, **changes: Any) -> ScoringReport:
    values = {"impressions": str(shop.candidates), "output": str(output), "scored_at": MOMENT} | changes
    return score_days(spark, shop.config, model_of(shop.model), ScoringRequest(**values))


def read(output: Path) -> pd.DataFrame:
    return pd.read_parquet(output).drop(columns="day")


@pytest.fixture(scope="module")
def scores(spark: SparkSession, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scores") / "out"
    report = score(spark, shop, output)
    assert report.scored == tuple(DAYS[-2:])
    return output


def test_each_candidate_has_the_score_that_evaluation_gives_to_its_sample(shop: Shop, scores: Path, tmp_path: Path) -> None:
    found = read(scores)
    for split in ("validation", "test"):
        predictions = tmp_path / f"{split}.parquet"
        arguments = ["--model", str(shop.model), "--samples", shop.config.samples, "--split", split]
        assert evaluate.main([*arguments, "--predictions", str(predictions)]) == 0
        expected = pd.read_parquet(predictions).set_index("impression_id")["probability"]
        rows = found[found["impression_id"].isin(expected.index)].set_index("impression_id")["score"]
        assert len(rows) == len(expected) > 50
        np.testing.assert_allclose(rows[expected.index], expected, rtol=0, atol=1e-6)
        assert expected.std() > 0.01, "scores tell rows apart"
