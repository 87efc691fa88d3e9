"""What a run is told at its start, and what of it lies beside the trained model."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from mian.atomic_write import write_atomically
from mian.config import TrainConfig
from mian.contract import Contract
from mian.fingerprint import package_fingerprint
from mian.tracking.errors import TrackingError, hide_passwords

if TYPE_CHECKING:
    from mian.evaluation.distributed_metrics import Evaluation  # what reads records alone needs no torch
    from mian.training.outcome import TrainingResult

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


class CalibrationRecord(BaseModel):
    """What ``metrics.json`` says of a calibration. ``before`` and ``after`` are ``logloss`` and ``calibration`` of a split, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["platt"] = "platt"
    scale: float
    offset: float
    left_out: str | None
    """Why scale and offset are 1 and 0; null where they were fitted."""
    validation_before: dict[str, float | None]
    validation_after: dict[str, float | None]
    test_before: dict[str, float | None] | None = None
    """Null: the test split was not scored, or the calibration was left out."""

    @classmethod
    def of(cls, trained: TrainingResult) -> CalibrationRecord | None:
        """The record of a training; None where no calibration was asked for."""
        found, before = trained.calibration, trained.test_uncalibrated
        if found is None:
            return None
        return cls(
            scale=found.scale,
            offset=found.offset,
            left_out=found.left_out,
            validation_before=undefined_as_none({"logloss": found.logloss_before, "calibration": found.calibration_before}),
            validation_after=undefined_as_none({"logloss": found.logloss_after, "calibration": found.calibration_after}),
            test_before=None if before is None else undefined_as_none(uncalibrated_metrics(before)),
        )

    def points(self) -> dict[str, float]:
        """The metrics as a run has them."""
        after = {f"calibrated_validation_{name}": value for name, value in self.validation_after.items()}
        before = {f"uncalibrated_test_{name}": value for name, value in (self.test_before or {}).items()}
        values = {"calibration_scale": self.scale, "calibration_offset": self.offset, **after, **before}
        return {name: math.nan if value is None else value for name, value in values.items()}


class ModelMetrics(BaseModel):
    """What ``metrics.json`` in a model's folder holds. A metric that is undefined, such as the AUC of one class, is null there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-metrics"] = "mian-metrics"
    version: Literal[1] = 1
    steps: int
    best_step: int
    """The step of the weights that were kept."""
    validation: dict[str, float | None]
    """Of the weights that were kept, before their calibration: the metrics by which they were chosen."""
    test: dict[str, float | None] | None = None
    """Of the model that was kept, with its calibration if it has one. None: the test split was not scored."""
    validation_is: Literal["before calibration"] = "before calibration"
    calibration: CalibrationRecord | None = None
    """None: the training has asked for none."""

    def points(self) -> list[tuple[dict[str, float], int]]:
        """The metrics as a run has them, and the step that they are of."""
        splits = {"validation": self.validation, "test": self.test or {}}
        named = {f"{split}_{name}": value for split, metrics in splits.items() for name, value in metrics.items()}
        values = {name: math.nan if value is None else value for name, value in named.items()}
        if self.calibration is not None:
            values |= self.calibration.points()
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


def uncalibrated_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Those metrics of a split that a calibration changes; the order of scores, and with it AUC and gAUC, stays."""
    return {name: evaluation.metrics[name] for name in ("logloss", "calibration")}


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
