"""What is noted beside the checkpoints of a training, so that they can be listed and reused."""

from __future__ import annotations

import json
from pathlib import Path

from mian.config import TrainConfig
from mian.contract import Contract

NOTES = "checkpoints.json"
"""Beside the checkpoints of a training: its settings, the contract of its samples, and the versions of the code that decides weights."""


def absolute_samples(samples: str) -> str:
    """The folder of samples as it is named from any working folder."""
    return samples if "://" in samples else str(Path(samples).absolute())


def noted_config(folder: Path) -> TrainConfig | None:
    """The settings that are noted beside checkpoints; None where they are missing, or of another release."""
    try:
        return TrainConfig.model_validate(json.loads((folder / NOTES).read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def noted_contract(folder: Path) -> Contract | None:
    """The contract that is noted beside checkpoints, without days; None where it is missing, or of another release."""
    try:
        return Contract.from_json(json.loads((folder / NOTES).read_text(encoding="utf-8"))["contract"], str(folder / NOTES))
    except (OSError, ValueError, KeyError, TypeError):
        return None
