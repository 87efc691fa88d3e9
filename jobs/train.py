"""Train a model: ``horovodrun -np 2 python jobs/train.py --config conf/train/mian.yaml``, or without the launcher on one process."""

from __future__ import annotations

import datetime as dt
import logging
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from jobs import command, stop_signal
from jobs.stop_signal import StopSignal
from mian.config import TrainConfig
from mian.metrics import plot_reliability
from mian.models import ClickModel, ModelError
from mian.serving import ServableError, input_example, read_vocabularies, save_servable
from mian.stream import StreamError
from mian.trainer import (
    CheckpointError,
    CheckpointStore,
    DeviceError,
    DisagreementError,
    HungRankError,
    Ranks,
    SpillError,
    Streams,
    TableMemoryError,
    Trained,
    Trainer,
    TrainingError,
    TrainingStopped,
    World,
    choose_device,
    open_streams,
    refuse_large_tables,
    training_key,
)
from pipeline.contract import Contract, ContractError, read_contract

if TYPE_CHECKING:
    from mian.tracking import Outcome, Tracker

log = logging.getLogger(__name__)

ERRORS = (
    CheckpointError,
    command.ConfigError,
    ContractError,
    DeviceError,
    DisagreementError,
    HungRankError,
    ModelError,
    ServableError,
    SpillError,
    StreamError,
    TableMemoryError,
    TrainingError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, train, track, register.

    Returns:
        0 when the model is there, 1 after one clear error, 75 when it was stopped by SIGTERM and can go on.
    """
    parser = command.parser(
        "Trains a model on samples, tracks the run in MLflow and registers the model.\n"
        "Every rank is one process; batch_size is the samples of a step and rank.\n"
        "Stopped or killed, it goes on from its newest checkpoint when it is started again with the same settings; SIGTERM takes one\n"
        "before it ends, with exit code 75.",
        config="conf/train/mian.yaml",
    )
    parser.add_argument("--profile", action="store_true", help="each rank writes a trace of some steps (as profile=true)")
    options = parser.parse_args(arguments)
    overrides = [*options.overrides, *(["profile=true"] if options.profile else [])]
    stop = StopSignal()
    world = World(stop.asked)

    def job() -> None:
        with world.needed():
            world.run(lambda: _job(options.config, overrides, world, stop))

    return stop_signal.run(job, ERRORS, stop, lambda: world.ranks.rank)


def _job(path: str, overrides: Sequence[str], world: World, stop: StopSignal) -> None:
    ranks = world.ranks

    def prepare() -> tuple[TrainConfig, Contract, Streams, CheckpointStore]:
        config = command.load_config(TrainConfig, path, overrides)
        device = choose_device(config, ranks.local_rank)  # where one rank's machine lacks something, all end here
        _make_output_folder(config.output)
        contract = read_contract(config.samples)
        refuse_large_tables(config, contract, ranks.size, ranks.local_size, device)
        folder = pathlib.Path(config.output) / "checkpoints" / training_key(config, contract)
        return config, contract, open_streams(config, contract, ranks), CheckpointStore(folder, config.checkpoint.keep)

    config, contract, streams, checkpoints = ranks.together(prepare, ERRORS)
    # read before the training: the data set may be built anew meanwhile
    kept = ranks.together(lambda: _Kept.of(contract, config.samples) if ranks.is_first else None, ERRORS)
    tracker = _tracker(config) if ranks.is_first else None
    store = checkpoints if ranks.is_first and config.checkpoint.enabled else None
    traces = pathlib.Path(config.output) / "profiles" / checkpoints.folder.name
    trace = traces / f"rank-{ranks.rank}.json" if config.profile else None
    trainer = ranks.together(
        lambda: Trainer(
            config, contract, streams, ranks, tracker.report if tracker else _to_nobody, store, world.stopping, trace
        ),
        ERRORS,
    )
    # the state is held by no name here: it is as large as all that is trained
    resumed = trainer.resume(ranks.together(lambda: _saved(world, checkpoints.folder.name, store), ERRORS))
    world.hold(checkpoints.folder.name, trainer)
    outcome: Outcome = "FAILED"
    try:
        if tracker is not None:
            _announce(contract, streams, config, ranks)
            if resumed:
                progress = trainer.progress
                log.info("goes on after step %s, in epoch %d", f"{progress.step:,}", progress.epoch)
            tracker.start(config.model_dump() | {"ranks": ranks.size}, contract, config.samples, trainer.progress.run_id)
            trainer.progress.run_id = tracker.run_id
        trainer.progress.run_id = ranks.from_first(trainer.progress.run_id)  # any rank may be the first one next time
        stop.heeded = True
        with world.changes():
            trained = trainer.run()
            model = trainer.whole_model()
            if tracker is not None and kept is not None:
                _keep(config, contract, model, trained, tracker, kept)
                checkpoints.clear()
        outcome = "FINISHED"
    except TrainingStopped:
        outcome = "KILLED"
        raise
    except world.ends:
        outcome = "RUNNING"
        raise
    finally:
        if outcome != "RUNNING":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # horovodrun sends it as soon as another rank has ended in an error
        if tracker is not None:
            if trace is not None:
                tracker.files(traces)
            tracker.end(outcome)


def _tracker(config: TrainConfig) -> Tracker:
    """The record of the run, which the first rank keeps; MLflow takes seconds to import, and the others do without."""
    from mian.tracking import Tracker

    return Tracker(config.tracking)


def _to_nobody(metrics: Mapping[str, float], step: int) -> None:
    """What ranks that are not the first have to report."""


def _saved(world: World, key: str, store: CheckpointStore | None) -> dict[str, Any] | None:
    """What the training goes on from: what the first rank has in memory, or else its newest checkpoint."""
    saved = world.saved(key) if world.ranks.is_first else None
    return saved if saved is not None or store is None else store.newest()


def _make_output_folder(folder: str) -> None:
    """Before the training, which would be lost if there were no place for it."""
    try:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise command.ConfigError(f"output: {folder} cannot be made a folder ({error}); name another one") from error


def _announce(contract: Contract, streams: Streams, config: TrainConfig, ranks: Ranks) -> None:
    missing = contract.missing_days(config.train_split)
    if missing:
        log.warning("%d days of split %s are not built, the first %s", len(missing), config.train_split, missing[0])
    log.info(
        "%s: %s training samples, %s ranks, %s steps an epoch of %s samples each, %s samples an epoch left over",
        contract.name,
        f"{streams.train.rows:,}",
        ranks.size,
        f"{streams.train.steps:,}",
        f"{config.batch_size * ranks.size:,}",
        streams.train.rows_left_over,
    )


@dataclass(frozen=True)
class _Kept:
    """What of the data set a model takes along."""

    vocabularies: dict[str, bytes]
    example: pd.DataFrame

    @classmethod
    def of(cls, contract: Contract, samples: str) -> _Kept:
        return cls(read_vocabularies(contract, samples), input_example(contract, samples))


def _keep(config: TrainConfig, contract: Contract, model: ClickModel, trained: Trained, tracker: Tracker, kept: _Kept) -> None:
    """Save the model here first, then tell the tracking store."""
    name = f"{config.model.name}-{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S%f}"
    folder = str(pathlib.Path(config.output) / name)
    try:
        save_servable(folder, model, config.model.name, config.model.options, contract, kept.vocabularies)
    except (OSError, RuntimeError) as error:  # torch says a full disk in an error of its own
        raise TrainingError(
            f"{folder}: the trained model cannot be written ({' '.join(str(error).split())}); make room there, or make it writable, and "
            "start the same command again: it goes on from the newest checkpoint, if one could be written"
        ) from error
    log.info("best weights: those of step %s of %s; the model is in %s", f"{trained.best_step:,}", f"{trained.steps:,}", folder)
    tracker.report({"best_step": trained.best_step}, trained.steps)
    if trained.test is not None:
        metrics = trained.test.metrics
        tracker.report({f"test_{metric}": value for metric, value in metrics.items()}, trained.best_step)
        table = trained.test.reliability()
        tracker.figure(plot_reliability({config.model.name: table}), "reliability.png")
        tracker.table(table, "reliability.csv")
        log.info(
            "test: AUC %.5f  logloss %.5f  gAUC %.5f  calibration %.3f  on %s samples",
            metrics["auc"],
            metrics["logloss"],
            metrics["gauc"],
            metrics["calibration"],
            f"{int(metrics['rows']):,}",
        )
    tracker.flush()
    uri = tracker.register(folder, kept.example)
    if uri is not None:
        log.info("logged to %s as %s", tracker.uri, uri)
    else:
        log.warning(
            "the model is not registered; when the tracking store is back: python jobs/register.py --model %s --config THE_SAME_FILE "
            "(and the same KEY=VALUE as now)",
            folder,
        )


if __name__ == "__main__":
    sys.exit(main())
