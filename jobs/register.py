"""Record and register a model that was trained while the tracking store was away: ``python jobs/register.py --model models/mian-...``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import command
from mian.checkpoint.retention import CHECKPOINTS, lock_path
from mian.checkpoint.training_lock import AlreadyRunningError, TrainingLock
from mian.config import TrainConfig
from mian.contract import ContractError, read_contract
from mian.models import ModelError
from mian.serving import ServableError, input_example
from mian.serving.servable import MODEL_FILE, ModelDescription
from mian.tracking.errors import TrackingError
from mian.tracking.journal import JOURNALS
from mian.tracking.mlflow_store import STORE_ERRORS
from mian.tracking.records import HIDDEN, TRAINING_FILE, TrainingRecord, flatten, read_metrics, read_training
from mian.tracking.registry import load_model
from mian.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, register; 0 when the model is in the registry, 1 with one clear error when not."""
    parser = command.parser(
        "Records and registers a model that a training kept in a local folder: what the tracking store lacks of the run is sent, and the\n"
        "model becomes a version. Model, options and metrics are those in the folder."
    )
    parser.add_argument("--model", required=True, metavar="FOLDER", help="the folder that the training named")
    parser.add_argument("--config", metavar="FILE", help="the training's configuration, where `tracking` in it has changed since")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="such as tracking.uri=http://tracking:5000")
    options = parser.parse_args(arguments)
    errors = (AlreadyRunningError, ContractError, ModelError, ServableError, TrackingError, *STORE_ERRORS)
    return command.run(lambda: _register(Path(options.model), options.config, options.overrides), errors)


def _register(folder: Path, path: str | None, overrides: Sequence[str]) -> None:
    load_model(str(folder))
    record = read_training(folder)
    recorded = TrainConfig.model_validate(record.config)
    description = ModelDescription.model_validate_json((folder / MODEL_FILE).read_bytes())
    if (description.name, description.options) != (recorded.model.name, recorded.model.options):
        raise TrackingError(f"{folder / TRAINING_FILE}: of another model than {MODEL_FILE} beside it; copy the folder again")
    config = command.load_config(TrainConfig, path or str(folder / TRAINING_FILE), overrides, inside=None if path else "config")
    _refuse_others(config, recorded, path or "the overrides", folder)
    if f":{HIDDEN}@" in (config.tracking.uri or ""):
        raise TrackingError(
            f"{folder / TRAINING_FILE}: the password of {config.tracking.uri} is not kept there; give tracking.uri=..., or "
            "tracking.uri=null and MLFLOW_TRACKING_URI in the environment"
        )
    with TrainingLock(lock_path(folder.resolve().parent / CHECKPOINTS / record.key)):  # its training may still be scoring
        _record(folder, record, config, recorded)


def _record(folder: Path, record: TrainingRecord, config: TrainConfig, recorded: TrainConfig) -> None:
    metrics = read_metrics(folder)
    journals = folder.resolve().parent / JOURNALS
    places = journals / folder.resolve().name, journals / record.key
    journal = next((place for place in places if place.exists()), places[0])
    tracker = Tracker(config.tracking, journal, training=record.training)
    if tracker.journal.training != record.training:  # of a later training with the same settings
        tracker = Tracker(config.tracking, places[0], training=record.training)
    has_journal = tracker.journal.exists
    contract, registered = read_contract(str(folder)), False
    example = input_example(contract, str(folder))  # made of the model's vocabularies: the samples may be gone
    try:
        tracker.start(recorded.model_dump() | {"ranks": record.ranks}, contract, config.samples)
        if tracker.failure is not None:
            raise TrackingError(f"{folder} is not registered: {tracker.shown_uri} does not answer ({tracker.failure})")
        if has_journal or not tracker.goes_on:
            for values, step in metrics.points():
                tracker.report(values, step)
        trial = config.max_steps is not None
        uri = tracker.register(str(folder), example, move_alias=not trial)
        if uri is None:
            raise TrackingError(f"{folder} is not registered: {tracker.failure}")
        log.info("registered as %s%s", uri, "; alias unchanged, it is a trial" * trial)
        registered = True
    finally:
        if tracker.end("FINISHED" if registered else None) and registered and tracker.journal.folder == places[0]:
            tracker.journal.remove()


def _refuse_others(config: TrainConfig, recorded: TrainConfig, source: str, folder: Path) -> None:
    """Refuse a configuration that is not that of the model."""
    given, trained_with = (dict(flatten(_but_tracking(each))) for each in (config, recorded))
    for name in sorted(given.keys() | trained_with.keys()):
        if given.get(name) != trained_with.get(name):
            raise TrackingError(
                f"{source}: {name} is {given.get(name)}, and {folder} was trained with {trained_with.get(name)}; leave the file out, "
                "for the folder says what it holds"
            )


def _but_tracking(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"tracking", "samples", "output"})


if __name__ == "__main__":
    sys.exit(main())
