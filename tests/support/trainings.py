"""What the tests of whole trainings share: a small one's configuration, and the one run that it leaves."""

from __future__ import annotations

from pathlib import Path

import mlflow
import yaml

from tests.support.sample_data import SMALL_MODEL
from tests.support.stores import new_store


def write_training(folder: Path, samples: Path | str, **values: object) -> Path:
    """Write ``train.yaml`` into a folder, where the training keeps all it makes; ``values`` are added, or take the place of these."""
    settings = {
        "samples": str(samples),
        "output": str(folder / "models"),
        "model": {"name": "mian", "options": dict(SMALL_MODEL)},
        "batch_size": 16,
        "patience": 100_000,
        "threads": 1,
        "device": "cpu",
        "tracking": {"uri": new_store(folder / "mlflow.db")},
    }
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump(settings | values))
    return config


def the_run(folder: Path) -> mlflow.entities.Run:
    """The one run of a training in its folder."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return run
