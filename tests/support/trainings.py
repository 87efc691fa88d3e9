"""What the tests of whole trainings share: a small one's configuration, its launch, and what it leaves."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mlflow
import psutil
import torch
import yaml

from mian.checkpoint.store import CheckpointStore
from tests.factories import SMALL_MODEL
from tests.launcher import TRAIN, Launch, horovodrun, ranks_with
from tests.support.stores import new_store

SECONDS = 180


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


class Training:
    """A training in a folder of its own, on real ranks.

    Args:
        folder: Of the training; it is made.
        samples: What it is trained on.
        values: Of its configuration, see :func:`write_training`.
    """

    def __init__(self, folder: Path, samples: Path | str, **values: object) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.config = write_training(folder, samples, **values)

    def start(self, *overrides: str, **launch: Any) -> AbstractContextManager[Launch]:
        """Start it, on two ranks unless ``launch`` says otherwise; see :func:`tests.launcher.horovodrun`."""
        return horovodrun(TRAIN, "--config", self.config, *overrides, folder=self.folder, **launch)

    def finish(self) -> Launch:
        """Run it to its end, which must be a good one."""
        with self.start() as launch:
            launch.wait(SECONDS)
        assert launch.code == 0, launch.output
        return launch

    def ranks(self, by: str = "HOROVOD_RANK") -> dict[str, psutil.Process]:
        """The processes of the ranks that run, by a variable of their environment."""
        return {environment[by]: process for environment, process in ranks_with(self.config)}

    def models(self) -> list[Path]:
        """The weights of what was kept; one that was killed while it registered its model keeps another."""
        return list(self.folder.glob("models/mian-*/weights.pt"))

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the newest model."""
        weights: dict[str, torch.Tensor] = torch.load(max(self.models()), weights_only=True)
        return weights

    def checkpointed(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return max(
            (step for folder in self.folder.glob("models/checkpoints/*") for step in CheckpointStore(folder, 2).steps()),
            default=0,
        )


def long_training(folder: Path, samples: Path, **values: object) -> Training:
    """One that can be killed at many moments: six epochs with dropout and a falling rate, and a checkpoint every ten steps."""
    settings: dict[str, object] = {
        "model": {"name": "mian", "options": {**SMALL_MODEL, "dropout": 0.2}},
        "optimizer": {"learning_rate": 3e-3, "schedule": "linear", "l2_embedding": 1e-4},
        "batch_size": 16,
        "epochs": 6,
        "log_every": 20,
        "checkpoint": {"every_steps": 10},
    }
    return Training(folder, samples, **settings | values)


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """To the last bit."""
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
