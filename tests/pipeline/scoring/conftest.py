import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from mian.serving.batch_scorer import load_batch_scorer
from mian.serving.servable import servable_digest, servable_files
from pipeline.scoring.run import ScoringReport, ScoringRequest, score_days
from pipeline.scoring.scorer import ScoringModel
from tests.support.candidate_logs import Shop, build_shop, write_candidates, write_pages

MOMENT = dt.datetime(2026, 3, 7, 4, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs of the shop, and candidates; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("shop")
    write_pages(folder)
    write_candidates(folder)
    return folder


@pytest.fixture(scope="session")
def shop(spark: SparkSession, pages: Path) -> Shop:
    return build_shop(spark, pages)


def model_of(folder: Path, version: str = "mian/3") -> ScoringModel:
    return ScoringModel(str(folder), servable_files(folder), version, servable_digest(folder), load_batch_scorer)


# Pages of the shop show up to nine items, so that with groups of three some moments are scored together and some are not.
def score(spark: SparkSession, shop: Shop, output: Path, model: ScoringModel | None = None, **changes: Any) -> ScoringReport:
    values = {"impressions": str(shop.candidates), "output": str(output), "scored_at": MOMENT, "smallest_group": 3} | changes
    return score_days(spark, shop.config, model or model_of(shop.model), ScoringRequest(**values))


def read(output: Path) -> pd.DataFrame:
    """All scores of a folder, as a reader of Parquet folders finds them, by impression."""
    return pd.read_parquet(output).set_index("impression_id").sort_index()
