"""Candidates scored on a Spark standalone cluster, whose workers have the library from a file and the model from the driver."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from mian.serving.batch_scorer import load_batch_scorer
from mian.serving.servable import servable_digest, servable_files
from pipeline.scoring.run import ScoringRequest, score_days
from pipeline.scoring.scorer import ScoringModel
from tests.support.candidate_logs import build_shop, write_candidates, write_pages
from tests.support.standalone import python_without_project, standalone_cluster, submit

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.spark, pytest.mark.long]


def test_scores_of_a_cluster_are_those_of_local_mode(spark: SparkSession, tmp_path: Path) -> None:
    python = python_without_project(tmp_path / "python")
    packaging = ["bash", f"{ROOT}/scripts/package.sh", f"{tmp_path}/dist"]
    package = subprocess.run(packaging, capture_output=True, text=True, timeout=120, check=True).stdout.strip()
    write_pages(tmp_path, pages=20)
    write_candidates(tmp_path)
    shop = build_shop(spark, tmp_path)
    model = str(shop.model)
    loaded = ScoringModel(model, servable_files(model), "by hand", servable_digest(model), load_batch_scorer)
    score_days(spark, shop.config, loaded, ScoringRequest(str(shop.candidates), str(tmp_path / "locally")))

    settings = shop.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(settings))
    job = shutil.copy(ROOT / "jobs" / "score.py", tmp_path)
    # what the driver has is out of the workers' sight: they are given the model, or do not find it
    (tmp_path / "driver").mkdir()
    shutil.move(model, tmp_path / "driver" / "model")
    with standalone_cluster(tmp_path / "spark", python) as cluster:
        travels = ["--master", cluster.url, "--py-files", package, "--executor-memory", "700m", "--executor-cores", "1"]
        place = ["--config", "data.yaml", "--impressions", str(shop.candidates), "--output", "scores"]
        printed = submit(tmp_path, python, *travels, str(job), "--model", "driver/model", *place)
        given = {path.parent.name for folder in cluster.workers for path in folder.glob("app-*/*/model-*/weights.pt")}
    assert "2 days scored" in printed
    assert given == {f"model-{loaded.digest[:16]}"}
    frames = [pd.read_parquet(tmp_path / name).set_index("impression_id").sort_index() for name in ("scores", "locally")]
    assert list(frames[0].index) == list(frames[1].index)
    np.testing.assert_allclose(frames[0]["score"], frames[1]["score"], rtol=0, atol=1e-6)
