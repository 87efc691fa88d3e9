"""What the jobs gave before a change of the code that is to change nothing: bytes of samples, losses, metrics, a checkpoint, a model.

    python -m tests.support.golden_record

writes ``recorded.json`` and ``kept/`` of ``tests/golden`` anew, by the jobs' own command lines, and needs some minutes. Do that only where
a change is meant to change these figures, and say so. ``test_golden.py`` compares.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import yaml

from tests.support.simulated_rows import GOLDEN, world_fingerprint

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "golden" / "recorded.json"
KEPT = ROOT / "tests" / "golden" / "kept"

#: Three days of the demo's world, one for each split.
WORLD = (
    "simulate.impressions=16000",
    "simulate.users=300",
    "simulate.first_day=2026-01-03",
    "simulate.last_day=2026-02-03",
    "log.complete_to=2026-02-04",
    "logs=logs",
    "samples=samples",
    "rows_per_file=300",
    "splits.train.first=2026-02-01",
    "splits.train.last=2026-02-01",
    "splits.validation.first=2026-02-02",
    "splits.validation.last=2026-02-02",
    "splits.test.first=2026-02-03",
    "splits.test.last=2026-02-03",
)
DAYS = ("--from", "2026-02-01", "--to", "2026-02-03")
#: Small: the weights of two of them lie in the repository.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "mian": {"embedding_dim": 8, "heads": 2, "mlp": [16, 8], "global_dim": 16, "dropout": 0.1},
    "din": {"embedding_dim": 8},
    "mian_plus": {"embedding_dim": 8, "heads": 2, "mlp": [16, 8], "global_dim": 16, "dropout": 0.1},
}
TRAINING: Mapping[str, Any] = {
    "output": "models",
    "batch_size": 8,
    "log_every": 1,
    "threads": 1,
    "optimizer": {"learning_rate": 0.003, "schedule": "linear", "l2_embedding": 1e-4},
    "tracking": {"uri": "sqlite:///mlflow.db"},
}


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder; what it printed.

    Raises:
        RuntimeError: it did not end well.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    }
    environment.pop("PYSPARK_SUBMIT_ARGS", None)
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    return done.stdout


def build(folder: Path) -> None:
    """Simulate the world's logs, and build the samples of its three days."""
    config = ("--config", f"{ROOT}/conf/data/demo.yaml")
    run(folder, "spark-submit", f"{ROOT}/jobs/simulate_logs.py", *config, *WORLD)
    run(folder, "spark-submit", f"{ROOT}/jobs/build_samples.py", *config, *DAYS, *WORLD)


def sample_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each sample file, by its day and its place in the day."""
    contract = json.loads((folder / "samples" / "contract.json").read_text())
    return {
        f"{day['day']}, file {number}": hashlib.sha256((folder / "samples" / file["path"]).read_bytes()).hexdigest()
        for day in contract["days"]
        for number, file in enumerate(day["files"])
    }


def train(folder: Path, samples: Path, model: str, ranks: int, *overrides: str) -> str:
    """Train a model; what was printed."""
    launcher = ("horovodrun", "-np", str(ranks), "--gloo") if ranks > 1 else ()
    config = {**TRAINING, "samples": os.path.relpath(samples, folder), "model": {"name": model, "options": dict(OPTIONS[model])}}
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    return run(folder, *launcher, "python", f"{ROOT}/jobs/train.py", "--config", "train.yaml", *overrides)


def losses(folder: Path) -> list[float]:
    """The loss of each step of the newest run of a folder's store, in order."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mian")
    newest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    points = client.get_metric_history(newest.info.run_id, "train_logloss")
    return [point.value for point in sorted(points, key=lambda point: int(point.step))]


def fifty_steps(samples: Path) -> dict[str, list[float]]:
    """The losses of the first 50 steps, by model and number of ranks."""
    found = {}
    for model in OPTIONS:
        for ranks in (1, 2):
            with tempfile.TemporaryDirectory() as place:
                train(Path(place), samples, model, ranks, "max_steps=50")
                found[f"{model}, ranks {ranks}"] = losses(Path(place))
    return found


def metrics(folder: Path, samples: Path, model: Path) -> dict[str, dict[str, float]]:
    """What ``jobs/evaluate.py`` says of a model and of the baselines."""
    compared = ("--compare", "logistic_regression", "popularity", "--json", "metrics.json")
    run(folder, "python", f"{ROOT}/jobs/evaluate.py", "--model", str(model), "--samples", str(samples), *compared)
    table: dict[str, dict[str, float]] = json.loads((folder / "metrics.json").read_text())
    return table


def one_more_epoch(folder: Path, samples: Path) -> tuple[str, list[float]]:
    """Train for two epochs where one may be kept; what was printed, and all losses of the run."""
    said = train(folder, samples, "mian", 1, "checkpoint.keep_ended=true", "epochs=2")
    return said, losses(folder)


def trained_model(folder: Path) -> Path:
    """The newest model of a folder."""
    return sorted((folder / "models").glob("mian-*"))[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record everything anew."""
    assert not arguments
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        build(folder)
        samples = folder / "samples"
        found: dict[str, Any] = {
            "world": world_fingerprint(GOLDEN),
            "sample_files": sample_files(folder),
            "losses": fifty_steps(samples),
        }
        train(folder, samples, "mian", 1, "checkpoint.keep_ended=true", "epochs=1")
        shutil.rmtree(KEPT, ignore_errors=True)
        shutil.copytree(samples, KEPT / "samples")
        shutil.copytree(trained_model(folder), KEPT / "model")
        shutil.copytree(folder / "models" / "ended", KEPT / "ended")
        for notes in KEPT.glob("ended/*/checkpoints.json"):  # which name the folder of samples from the root
            notes.write_text(notes.read_text().replace(str(samples), "samples"))
        found["metrics"] = metrics(folder, KEPT / "samples", KEPT / "model")
        said, found["one more epoch"] = one_more_epoch(folder, samples)
        assert "goes on after step" in said, said
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
