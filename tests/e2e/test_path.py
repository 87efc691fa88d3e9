"""The whole path as a user runs it: launchers, jobs, a store of one's own; on a small simulated world."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from mian.contract import read_contract

ROOT = Path(__file__).parents[2]
WORLD = ["simulate.impressions=40000", "simulate.users=600", "logs=logs", "samples=samples", "rows_per_file=2000"]

pytestmark = [pytest.mark.spark, pytest.mark.ranks]


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder; what it printed."""
    environment = os.environ | {
        "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYSPARK_SUBMIT_ARGS", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def build(folder: Path) -> str:
    days = ["--from", "2026-02-01", "--to", "2026-02-14"]
    splits = ["splits.train.first=2026-02-01"]
    return run(
        folder, "spark-submit", f"{ROOT}/jobs/build_samples.py", "--config", f"{ROOT}/conf/data/demo.yaml", *days, *WORLD, *splits
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path")
    run(folder, "spark-submit", f"{ROOT}/jobs/simulate_logs.py", "--config", f"{ROOT}/conf/data/demo.yaml", *WORLD)
    assert "14 days built" in build(folder)
    training = [
        "samples=samples",
        "output=models",
        "epochs=2",
        "batch_size=256",
        "log_every=5",
        "tracking.uri=sqlite:///mlflow.db",
    ]
    config = ["--config", f"{ROOT}/conf/train/mian.yaml"]
    run(folder, "horovodrun", "-np", "2", "--gloo", "python", f"{ROOT}/jobs/train.py", *config, *training)
    return folder


def test_a_second_build_redoes_no_day_and_says_so(folder: Path) -> None:
    before = (folder / "samples" / "contract.json").read_bytes()
    printed = build(folder)
    assert "14 of 14 days are finished and unchanged" in printed
    assert "0 days built, 14 finished before and unchanged" in printed
    assert (folder / "samples" / "contract.json").read_bytes() == before


def test_the_registered_model_scores_raw_values_as_evaluation_scored_the_samples(folder: Path) -> None:
    arguments = ["--model", "models:/mian@newest", "--samples", "samples", "--split", "test", "--truth", "logs/truth"]
    outputs = ["--predictions", "predictions.parquet", "--json", "metrics.json", "--tracking-uri", "sqlite:///mlflow.db"]
    run(folder, "python", f"{ROOT}/jobs/evaluate.py", *arguments, *outputs)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0.5 < metrics["model"]["auc"] < metrics["attainable"]["auc"] < metrics["upper bound"]["auc"] < 1
    assert metrics["model"]["logloss"] > metrics["attainable"]["logloss"] > metrics["upper bound"]["logloss"]
    assert metrics["model"]["share"] == pytest.approx((metrics["model"]["auc"] - 0.5) / (metrics["attainable"]["auc"] - 0.5))

    contract = read_contract(str(folder / "samples"))
    raw = pd.concat(
        [pd.read_parquet(folder / "samples" / day.examples.path) for day in contract.split("test") if day.examples is not None]
    )
    assert len(raw) >= 500
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/mian@newest")
    served = model.predict(raw[[field.column for field in contract.fields]])["probability"].to_numpy()
    scored = pd.read_parquet(folder / "predictions.parquet").set_index("impression_id")["probability"]
    np.testing.assert_allclose(served, scored[raw["impression_id"]].to_numpy(), rtol=0, atol=1e-6)


def test_one_run_holds_the_training(folder: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    runs = mlflow.search_runs(experiment_names=["mian"], output_format="list")
    assert len(runs) == 1
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.params["ranks"] == "2"
    assert {"test_auc", "test_logloss", "test_gauc", "test_calibration", "validation_auc", "train_logloss"} <= set(
        runs[0].data.metrics
    )
