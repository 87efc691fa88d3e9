"""Names of trainings: equal for equal settings on equal samples by the same code."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

from mian.config import TrainConfig
from mian.contract import Contract, Split, read_contract
from mian.models import weights_version

TRAINER_VERSION = 1
"""Raised by hand where a change of the trainer or the stream makes other weights of the same settings and samples: checkpoints and trials
of before are then not gone on from."""


def training_key(config: TrainConfig, contract: Contract) -> str:
    """A name for a training: the same for the same settings on the same samples, whatever other days the data set has, by the same code.

    Raises:
        ModelError: the model is unknown.
        ContractError: a split is not there.
    """
    samples = trained_days(config, contract).to_json()
    text = json.dumps([_settings(config), samples, code_versions(config.model.name)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Without settings that change nothing here and came after others: trainings of before them keep their keys."""
    settings = config.settings()
    unused = ["calibration"] if config.calibration == "none" else []
    if config.init_from is None:
        unused += ["warm_rate", "init_new_rows", "init_category"]
    return {name: value for name, value in settings.items() if name not in unused}


def key_of_any_epochs(config: TrainConfig, contract: Contract) -> str:
    """A name for all trainings that differ in nothing but their number of epochs; errors are those of :func:`training_key`."""
    return training_key(config.model_copy(update={"epochs": 0}), contract)


def code_versions(model: str) -> dict[str, int]:
    """The versions of the code that decides weights: of the trainer, and of a model by its name.

    Raises:
        ModelError: the model is unknown.
    """
    return {"trainer": TRAINER_VERSION, model: weights_version(model)}


def training_contract(config: TrainConfig) -> Contract:
    """The contract of the samples of a training, its training split cut to ``train_window_days``.

    Raises:
        ContractError: there is none, it cannot be read, or it has no such split.
    """
    contract, name, window = read_contract(config.samples), config.train_split, config.train_window_days
    if window is None or name not in contract.splits:
        return contract
    span = contract.splits[name]
    first = max(span.first, span.last - dt.timedelta(days=window - 1))
    return contract.model_copy(update={"splits": {**contract.splits, name: Split(first=first, last=span.last)}})


def trained_days(config: TrainConfig, contract: Contract) -> Contract:
    """The contract with those days alone that a training uses."""
    splits = {config.train_split, config.validation_split, config.test_split} - {None}
    days = {day.day: day for split in splits if split is not None for day in contract.split(split)}
    return contract.model_copy(update={"days": tuple(days[day] for day in sorted(days))})
