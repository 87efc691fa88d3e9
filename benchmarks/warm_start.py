"""Does a model that goes on for one more day beat the one that did not?

    python benchmarks/warm_start.py --impressions 400000

In a simulated world, whose items come and go, a model is trained on 30 days. Then its vocabularies are extended by the next day, and a
training begins with its weights and sees that day alone, once (``init_from``). Both are scored on the day after. All is done by the
jobs, as a team would. Prints one JSON line of metrics: ``old``, the first model on the day after; ``before_the_first_step``, the second
training's before its first step there, where new values have vectors that are drawn; ``after_the_day``; and ``new_values``, how many
values were added.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import yaml

from mian.contract import read_contract

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "conf" / "data" / "demo.yaml"
TRAINING = ROOT / "conf" / "train" / "mian.yaml"
METRICS = ("auc", "logloss")
#: Days of the splits before and after the day is added.
BEFORE = {"train": ("2026-01-01", "2026-01-30"), "validation": ("2026-01-31", "2026-01-31"), "test": ("2026-02-01", "2026-02-01")}
AFTER = {"train": ("2026-01-31", "2026-01-31"), "validation": ("2026-02-01", "2026-02-01")}


def main() -> None:
    """Simulate, build, train twice, and print one JSON line."""
    parser = argparse.ArgumentParser(description="Does a model that goes on for one more day beat the one that did not?")
    parser.add_argument("--impressions", type=int, default=400_000)
    parser.add_argument("--epochs", type=int, default=3, help="of the first training")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the second training")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps({"benchmark": "warm_start", "impressions": arguments.impressions} | compare(Path(name), arguments)))


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """What both trainings come to, in a folder of their own."""
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    data |= {"logs": str(folder / "logs"), "samples": str(folder / "samples")}
    data["simulate"]["impressions"] = arguments.impressions
    uri = f"sqlite:///{folder}/mlflow.db"
    tracking = {"uri": uri, "registered_name": None}
    training = yaml.safe_load(TRAINING.read_text(encoding="utf-8")) | {"samples": data["samples"], "tracking": tracking}

    config = written(folder / "before.yaml", data | {"splits": split(BEFORE)})
    job("simulate_logs", "--config", config, spark=True)
    job("build_samples", "--config", config, spark=True)
    sizes = {vocabulary.name: vocabulary.size for vocabulary in read_contract(data["samples"]).vocabularies}
    first = training | {"output": str(folder / "old"), "epochs": arguments.epochs, "test_split": None}
    job("train", "--config", written(folder / "old.yaml", first))
    (old,) = (path.parent for path in (folder / "old").glob("*/model.json"))

    config = written(folder / "after.yaml", data | {"splits": split(AFTER)})
    job("build_samples", "--config", config, "--extend-vocabularies", "--drop-days", spark=True)
    added = {v.name: v.size - sizes[v.name] for v in read_contract(data["samples"]).vocabularies if v.size > sizes[v.name]}
    rows = folder / "rows.json"
    job("evaluate", "--model", str(old), "--samples", data["samples"], "--split", "validation", "--json", str(rows))
    second = training | {"output": str(folder / "new"), "epochs": 1, "test_split": None, "init_from": str(old)}
    second |= {"warm_rate": 1.0, "init_new_rows": "draw"}  # the rate is given here
    second["optimizer"] = training["optimizer"] | {"learning_rate": arguments.learning_rate}
    job("train", "--config", written(folder / "new.yaml", second))

    old_metrics = json.loads(rows.read_text(encoding="utf-8"))["model"]
    curves = points(uri)
    last = max(step for _, step in curves)
    found = {
        "old": {name: old_metrics[name] for name in METRICS},
        "before_the_first_step": {name: curves[f"validation_{name}", 0] for name in METRICS},
        "after_the_day": {name: curves[f"validation_{name}", last] for name in METRICS},
    }
    shown = {place: {name: round(value, 5) for name, value in values.items()} for place, values in found.items()}
    return {"new_values": added, **shown}


def points(uri: str) -> dict[tuple[str, int], float]:
    """The validation metrics of the last run by step."""
    client = mlflow.MlflowClient(uri)
    (run, *_) = client.search_runs([each.experiment_id for each in client.search_experiments()], order_by=["start_time DESC"])
    names = [f"validation_{name}" for name in METRICS]
    return {(name, point.step): point.value for name in names for point in client.get_metric_history(run.info.run_id, name)}


def split(days: dict[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Splits as a configuration has them."""
    return {name: {"first": first, "last": last} for name, (first, last) in days.items()}


def written(path: Path, values: object) -> str:
    """A configuration file."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def job(name: str, *arguments: str, spark: bool = False) -> None:
    """Run one of the jobs; what it says goes to standard error."""
    launcher = ["spark-submit"] if spark else [sys.executable]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*launcher, str(ROOT / "jobs" / f"{name}.py"), *arguments], check=True, stdout=sys.stderr, env=environment)


if __name__ == "__main__":
    main()
