"""What a run is told at its start, and what of it lies beside the trained model."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from mian.atomic_write import write_atomically
from mian.config import TrainConfig
from mian.contract import Contract
from mian.fingerprint import package_fingerprint
from mian.tracking.errors import TrackingError, hide_passwords

Record = TypeVar("Record", bound=BaseModel)

TRAINING_FILE = "training.json"
METRICS_FILE = "metrics.json"
TRAINING_TAG = "mian.training"
"""Tag of a run: the id of its training, by which a later process finds the run."""


class TrainingRecord(BaseModel):
    """What ``training.json`` in a model's folder holds: the run that it belongs to, and what the run is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-training"] = "mian-training"
    version: Literal[1] = 1
    training: str
    """The id of the training; its run has it as tag :data:`TRAINING_TAG`."""
    key: str
    """Of the training's checkpoints and journal."""
    ranks: int
    ended: int | None = None
    """When the model was kept, in milliseconds since 1970; None in folders of earlier releases."""
    config: dict[str, Any]
    """The configuration, as :class:`mian.config.TrainConfig` dumps it; without the password of the tracking store."""


class ModelMetrics(BaseModel):
    """What ``metrics.json`` in a model's folder holds. A metric that is undefined, such as the AUC of one class, is null there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-metrics"] = "mian-metrics"
    version: Literal[1] = 1
    steps: int
    best_step: int
    """The step of the weights that were kept."""
    validation: dict[str, float | None]
    """Of the weights that were kept."""
    test: dict[str, float | None] | None = None
    """None: the test split was not scored."""

    def points(self) -> list[tuple[dict[str, float], int]]:
        """The metrics as a run has them, and the step that they are of."""
        splits = {"validation": self.validation, "test": self.test or {}}
        named = {f"{split}_{name}": value for split, metrics in splits.items() for name, value in metrics.items()}
        values = {name: math.nan if value is None else value for name, value in named.items()}
        return [({"best_step": self.best_step}, self.steps), (values, self.best_step)]


def write_record(folder: Path, record: TrainingRecord | ModelMetrics) -> None:
    """Write ``training.json`` or ``metrics.json``; the file is whole or as before."""
    path = folder / (TRAINING_FILE if isinstance(record, TrainingRecord) else METRICS_FILE)
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text, make_folder=False)


def read_training(folder: Path) -> TrainingRecord:
    """Read ``training.json``.

    Raises:
        TrackingError: it is missing or damaged, or its configuration is not one of this release.
    """
    path = folder / TRAINING_FILE
    record = _read(TrainingRecord, path)
    try:
        TrainConfig.model_validate(record.config)
    except ValidationError as error:
        raise _unreadable(path, error, "config") from error
    return record


def read_metrics(folder: Path) -> ModelMetrics:
    """Read ``metrics.json``.

    Raises:
        TrackingError: it is missing or damaged.
    """
    return _read(ModelMetrics, folder / METRICS_FILE)


def undefined_as_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _read(kind: type[Record], path: Path) -> Record:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TrackingError(f"{path}: cannot be read; give the folder of a model that a training kept ({error})") from error
    except ValidationError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: ValidationError, *within: str) -> TrackingError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in (*within, *first["loc"]))
    return TrackingError(f"{path}: damaged, or of another release: {key}: {first['msg']}")


def tags(contract: Contract, samples: str, training: str) -> dict[str, str]:
    """What was trained on, and by which code."""
    return {
        TRAINING_TAG: training,
        "mian.version": importlib.metadata.version("mian"),
        "mian.code": package_fingerprint("mian"),
        "mian.samples": samples,
        "mian.contract": contract.name,
        "mian.contract.fields": contract.fields_fingerprint,
        "mian.contract.vocabularies": contract.vocabulary_fingerprint,
        "mian.contract.config": contract.config_fingerprint,
        "mian.contract.code": contract.code_fingerprint,
    }


def quality_table(contract: Contract) -> pd.DataFrame:
    """What was found out about the samples while they were built: a row a day and column.

    Columns: ``day``, ``rows``, ``positives``, ``quarantined``, ``final``, ``column``, ``unknown`` (share of unknown ids), ``drift``
    (population stability index against the training days). Days of earlier releases have no such facts and are left out.
    """
    rows = [
        {
            "day": day.day,
            "rows": day.rows,
            "positives": day.positives,
            "quarantined": sum(day.quality.quarantined.values()),
            "final": day.final,
            "column": column,
            "unknown": day.quality.unknown.get(column),
            "drift": drift,
        }
        for day in contract.days
        if day.quality is not None
        for column, drift in day.quality.drift.items()
    ]
    columns = ["day", "rows", "positives", "quarantined", "final", "column", "unknown", "drift"]
    return pd.DataFrame(rows, columns=columns)


def recorded_settings(config: TrainConfig) -> dict[str, Any]:
    """The configuration as ``training.json`` holds it, which travels with the model."""
    values = config.model_dump(mode="json")
    if config.tracking.uri is not None:
        values["tracking"]["uri"] = hide_passwords(config.tracking.uri)
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as pairs of a name with dots, such as ``a.b.c``, and a value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


Outcome = Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]
"""``RUNNING``: it goes on elsewhere."""
