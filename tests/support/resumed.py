"""Trainings in this process that are stopped, and go on from a store of checkpoints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mian.training.trainer
from mian.checkpoint.keys import key_of_any_epochs, training_key
from mian.checkpoint.store import CheckpointStore
from mian.models import ClickModel
from mian.stream import SampleStream
from mian.training import Trainer, TrainingResult, TrainingStopped
from tests.factories import VALIDATION_DAYS
from tests.support.curves import Curves

EVALUATE_SPLIT = "mian.training.trainer.evaluate_split"  # as the trainer finds it
STEPS = 63  # an epoch of 2036 samples in batches of 32
SETTINGS: dict[str, Any] = {
    "options": {"dropout": 0.3},
    "epochs": 2,
    "evaluations_per_epoch": 3,
    "patience": 100,
    "log_every": 7,
    "optimizer": {"learning_rate": 3e-3, "schedule": "linear", "l2": 1e-4, "l2_embedding": 1e-4},
}


def trainer_of(
    samples: Any, store: CheckpointStore | None = None, stop_at: int | None = None, curves: Curves | None = None, **values: Any
) -> Trainer:
    trainer: Trainer = samples.trainer(store, stop_at, curves, **{**SETTINGS, **values})
    return trainer


def stopped(trainer: Trainer) -> int:
    with pytest.raises(TrainingStopped):
        trainer.run()
    return trainer.progress.step


def assert_same(one: TrainingResult, other: TrainingResult) -> None:
    """To the last bit."""
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name
    assert (one.best_step, one.steps, one.validation) == (other.best_step, other.steps, other.validation)


def store_of(samples: Any, folder: Path, settings: dict[str, Any]) -> CheckpointStore:
    """The store that ``jobs/train.py`` makes for these settings."""
    config = samples.config(**{**SETTINGS, **settings})
    ended = folder / "ended" / key_of_any_epochs(config, samples.contract)
    return CheckpointStore(folder / "checkpoints" / training_key(config, samples.contract), 2, config, samples.contract, ended)


def best_after(patch: pytest.MonkeyPatch, trainer: Trainer, *steps: int) -> Trainer:
    """It finds the lowest validation logloss after the first of these steps, the next one after the second, and so on."""
    evaluate = mian.training.trainer.evaluate_split

    def found(model: ClickModel, stream: SampleStream, *arguments: Any) -> Any:
        evaluation = evaluate(model, stream, *arguments)
        if model is not trainer.model or stream.rows != sum(map(sum, VALIDATION_DAYS)):
            return evaluation
        place = steps.index(trainer.progress.step) if trainer.progress.step in steps else len(steps)
        return SimpleNamespace(metrics=evaluation.metrics | {"logloss": 0.5 + 0.01 * place})

    patch.setattr(EVALUATE_SPLIT, found)
    return trainer
