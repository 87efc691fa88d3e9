"""Record and register a model whose training has ended, from the folder that it is kept in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mian.config import TrainConfig
from mian.contract import read_contract
from mian.serving import input_example
from mian.tracking.errors import TrackingError
from mian.tracking.journal import JOURNALS
from mian.tracking.records import TrainingRecord, flatten, read_metrics
from mian.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def record_and_register(folder: Path, record: TrainingRecord, config: TrainConfig, recorded: TrainConfig) -> None:
    """Send what the tracking store lacks of a training's run, and register its model.

    Args:
        folder: The model.
        record: Its ``training.json``.
        config: Its settings, with the tracking store to use.
        recorded: Its settings as they were trained with.

    Raises:
        TrackingError: The store does not answer, or can never take the run.
    """
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


def refuse_other_settings(config: TrainConfig, recorded: TrainConfig, source: str, folder: Path) -> None:
    """Refuse a configuration that differs from the one that the model was trained with; ``tracking``, ``samples`` and ``output`` may.

    Args:
        config: The configuration to register the model with.
        recorded: The configuration that the model was trained with.
        source: Where ``config`` comes from; the error names it.
        folder: The folder of the model; the error names it.

    Raises:
        TrackingError: Another setting differs; the message gives the first one in alphabetical order, with both values.
    """
    given, trained_with = (dict(flatten(_but_tracking(each))) for each in (config, recorded))
    for name in sorted(given.keys() | trained_with.keys()):
        if given.get(name) != trained_with.get(name):
            raise TrackingError(
                f"{source}: {name} is {given.get(name)}, and {folder} was trained with {trained_with.get(name)}; leave the file out, "
                "for the folder says what it holds"
            )


def _but_tracking(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"tracking", "samples", "output"})
