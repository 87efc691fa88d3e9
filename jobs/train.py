"""Train a model: ``horovodrun -np 2 python jobs/train.py --config conf/train/mian.yaml``, or without the launcher on one process."""

from __future__ import annotations

import datetime as dt
import logging
import math
import pathlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from jobs import command, stop_signal
from jobs.stop_signal import StopSignal
from mian.checkpoint.retention import CHECKPOINTS, ENDED, lock_path
from mian.checkpoint.store import CheckpointError, CheckpointStore, key_of_any_epochs, training_key
from mian.checkpoint.training_lock import AlreadyRunningError, TrainingLock
from mian.config import TrainConfig
from mian.contract import Contract, ContractError, read_contract
from mian.distributed.collectives import HungRankError, Ranks
from mian.evaluation.external_sort import SpillError
from mian.execution.device import DeviceError, choose_device
from mian.metrics import MetricError, plot_reliability
from mian.models import ClickModel, ModelError
from mian.serving import ServableError, input_example, read_vocabularies, save_servable
from mian.stream import StreamError
from mian.tracking.errors import TrackingError
from mian.tracking.journal import JOURNALS
from mian.tracking.records import ModelMetrics, TrainingRecord, recorded_settings, undefined_as_none, write_record
from mian.training import (
    CarryOverError,
    DisagreementError,
    ElasticSession,
    Streams,
    TableMemoryError,
    Trainer,
    TrainingError,
    TrainingResult,
    TrainingStopped,
    open_streams,
    refuse_large_tables,
)

if TYPE_CHECKING:
    from mian.tracking.tracker import Outcome, Tracker

log = logging.getLogger(__name__)

ERRORS = (
    AlreadyRunningError,
    CarryOverError,
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
    TrackingError,
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
    session = ElasticSession(stop.requested)

    def job() -> None:
        with session.translate_errors():
            session.run(lambda: _job(options.config, overrides, session, stop))

    return stop_signal.run(job, ERRORS, stop, lambda: session.ranks.rank)


def _job(path: str, overrides: Sequence[str], session: ElasticSession, stop: StopSignal) -> None:
    with ExitStack() as held:
        _train(path, overrides, session, stop, held)


def _train(path: str, overrides: Sequence[str], session: ElasticSession, stop: StopSignal, held: ExitStack) -> None:
    ranks = session.ranks

    def prepare() -> tuple[TrainConfig, Contract, Streams, CheckpointStore]:
        command.refuse_other_launchers(ranks.size)
        config = command.load_config(TrainConfig, path, overrides)
        device = choose_device(config, ranks.local_rank)  # where one rank's machine lacks something, all end here
        _make_output_folder(config.output)
        contract = read_contract(config.samples)
        refuse_large_tables(config, contract, ranks.size, ranks.local_size, device)
        folder = pathlib.Path(config.output) / CHECKPOINTS / training_key(config, contract)
        ended = pathlib.Path(config.output) / ENDED / key_of_any_epochs(config, contract)
        ended_or_none = ended if config.checkpoint.keep_ended else None
        checkpoints = CheckpointStore(folder, config.checkpoint.keep, config, contract, ended_or_none)
        return config, contract, open_streams(config, contract, ranks), checkpoints

    config, contract, streams, checkpoints = ranks.run_on_all_ranks(prepare, ERRORS)
    lock = TrainingLock(lock_path(checkpoints.folder))
    ranks.run_on_all_ranks(lambda: held.enter_context(lock) if ranks.is_first else None, ERRORS)
    # read before the training: the data set may be built anew meanwhile
    kept = ranks.run_on_all_ranks(lambda: _Kept.of(contract, config.samples) if ranks.is_first else None, ERRORS)
    tracker = _tracker(config, checkpoints.folder.name) if ranks.is_first else None
    if ranks.broadcast_object(tracker is not None and _has_ended(tracker, checkpoints)):
        return
    store = checkpoints if ranks.is_first and config.checkpoint.enabled else None
    traces = pathlib.Path(config.output) / "profiles" / checkpoints.folder.name
    trace = traces / f"rank-{ranks.rank}.json" if config.profile else None
    trainer = ranks.run_on_all_ranks(
        lambda: Trainer(
            config, contract, streams, ranks, tracker.report if tracker else _to_nobody, store, session.stopping, trace
        ),
        ERRORS,
    )
    # the state is held by no name here: it is as large as all that is trained
    resumed = trainer.resume(ranks.run_on_all_ranks(lambda: _saved(session, checkpoints.folder.name, store), ERRORS))
    if config.init_from is not None and not resumed:
        trainer.begin_with(
            *ranks.run_on_all_ranks(lambda: _initial(config, contract) if ranks.is_first else (None, None), ERRORS)
        )
    session.keep_state(checkpoints.folder.name, trainer)
    outcome: Outcome = "FAILED"
    try:
        ranks.run_on_all_ranks(lambda: _begin(config, contract, streams, ranks, trainer, tracker, resumed), (TrackingError,))
        trainer.progress.run_id = ranks.broadcast_object(trainer.progress.run_id)  # any rank may be the first one next time
        stop.heeded = True
        with session.interruptible():
            keeper = _Keeper(config, contract, trainer, ranks, tracker, kept, checkpoints.folder.name)
            try:
                trained = trainer.run(keeper.keep)
            except (StreamError, MetricError, SpillError) as error:
                if not keeper.folder:
                    raise
                raise keeper.scoring_failed(error) from error
            keeper.record_test(trained)
            keeper.register_late()
        outcome = "FINISHED"
    except TrainingStopped:
        outcome = "KILLED"
        raise
    except session.restart_errors:
        outcome = "RUNNING"
        raise
    finally:
        if outcome != "RUNNING":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # horovodrun sends it as soon as another rank has ended in an error
        if tracker is not None:
            if trace is not None:
                tracker.files(traces)
            _end(tracker, outcome, checkpoints)


def _begin(
    config: TrainConfig,
    contract: Contract,
    streams: Streams,
    ranks: Ranks,
    trainer: Trainer,
    tracker: Tracker | None,
    resumed: bool,
) -> None:
    """Say what is trained, and begin its run, or go on with it."""
    if tracker is None:
        return
    _announce(contract, streams, config, ranks)
    progress = trainer.progress
    if resumed:
        log.info("goes on after step %s, in epoch %d", f"{progress.step:,}", progress.epoch)
    tracker.start(config.model_dump() | {"ranks": ranks.size}, contract, config.samples, progress.run_id)
    progress.run_id = tracker.run_id or progress.run_id


def _end(tracker: Tracker, outcome: Outcome, checkpoints: CheckpointStore) -> None:
    """End the run; what is not needed any more goes, in an order in which a kill costs nothing."""
    complete = tracker.end(outcome)
    journal = tracker.journal
    if outcome == "FINISHED":
        journal.note("ended", "complete" if complete and journal.notes["registered"] == "yes" else "incomplete")
        _tidy(tracker, checkpoints)
    elif outcome == "FAILED" and complete and not checkpoints.folder.exists():
        journal.remove()


def _has_ended(tracker: Tracker, checkpoints: CheckpointStore) -> bool:
    """Whether an earlier process has ended this training, and was killed before it could tidy up; then that is done."""
    if "ended" not in tracker.journal.notes:
        return False
    log.info("the training has ended before; its model is in %s", tracker.journal.notes["model"])
    _tidy(tracker, checkpoints)
    return True


def _tidy(tracker: Tracker, checkpoints: CheckpointStore) -> None:
    journal = tracker.journal
    checkpoints.clear()
    if journal.notes["ended"] == "complete":
        journal.remove()
    else:
        journal.move(journal.folder.with_name(pathlib.Path(journal.notes["model"]).name))


def _tracker(config: TrainConfig, key: str) -> Tracker:
    """The record of the run, which the first rank keeps; MLflow takes seconds to import, and the others do without."""
    from mian.tracking.tracker import Tracker

    return Tracker(config.tracking, pathlib.Path(config.output) / JOURNALS / key)


def _to_nobody(metrics: Mapping[str, float], step: int) -> None:
    """What ranks that are not the first have to report."""


def _saved(session: ElasticSession, key: str, store: CheckpointStore | None) -> dict[str, Any] | None:
    """What the training goes on from: what the first rank has in memory, or else its newest checkpoint."""
    saved = session.kept_state(key) if session.ranks.is_first else None
    return saved if saved is not None or store is None else store.newest()


def _initial(config: TrainConfig, contract: Contract) -> tuple[ClickModel, Mapping[str, torch.Tensor] | None]:
    """What the training begins with; MLflow takes seconds to import, and other trainings' ranks do without."""
    from mian.tracking.initial_model import initial_weights

    return initial_weights(config, contract)


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


class _Keeper:
    """Keeps the trained model, before the test split is scored, and then what came of the scoring.

    Args:
        config: the settings.
        contract: of the samples.
        trainer: whose model it is.
        ranks: who takes part; all call each method.
        tracker: on the first rank.
        kept: on the first rank.
        key: of the training.

    Attributes:
        folder: where the model is kept; empty until it is.
    """

    def __init__(
        self,
        config: TrainConfig,
        contract: Contract,
        trainer: Trainer,
        ranks: Ranks,
        tracker: Tracker | None,
        kept: _Kept | None,
        key: str,
    ) -> None:
        self._config = config
        self._contract = contract
        self._trainer = trainer
        self._ranks = ranks
        self._tracker = tracker
        self._kept = kept
        self._key = key
        self.folder = ""

    def keep(self, trained: TrainingResult) -> None:
        """Save the model, then register it."""
        model = self._trainer.whole_model()
        self._ranks.limit_exchanges(math.inf)  # however long the model takes to be kept
        self.folder = self._ranks.broadcast_object(
            self._ranks.run_on_all_ranks(lambda: self._save(model, trained), (TrainingError,))
        )
        if self._tracker is not None:
            self._register(self._tracker, trained)
        self._ranks.barrier()
        self._ranks.limit_exchanges(self._config.exchange_timeout_seconds)

    def scoring_failed(self, error: Exception) -> TrainingError:
        """The error to end with where the test split cannot be scored."""
        return TrainingError(
            f"the model is kept in {self.folder}, but split {self._config.test_split} cannot be scored: {error}; the same command started "
            "again on these samples goes on with the scoring, on samples built anew it trains anew; jobs/evaluate.py --model "
            f"{self.folder} scores any other samples"
        )

    def record_test(self, trained: TrainingResult) -> None:
        """Add the metrics of the test split to the model's folder and to the run."""
        tracker = self._tracker
        if tracker is None or trained.test is None:
            return
        metrics = trained.test.metrics
        _write_metrics(self.folder, trained)
        tracker.report({f"test_{metric}": value for metric, value in metrics.items()}, trained.best_step)
        table = trained.test.reliability()
        tracker.figure(plot_reliability({self._config.model.name: table}), "reliability.png")
        tracker.table(table, "reliability.csv")
        log.info(
            "test: AUC %.5f  logloss %.5f  gAUC %.5f  calibration %.3f  on %s samples",
            metrics["auc"],
            metrics["logloss"],
            metrics["gauc"],
            metrics["calibration"],
            f"{int(metrics['rows']):,}",
        )

    def register_late(self) -> None:
        """Try once more where the tracking store was away when the model was kept."""
        if self._tracker is not None and self._tracker.journal.notes["registered"] == "no":
            self._try_to_register(self._tracker)

    def _save(self, model: ClickModel, trained: TrainingResult) -> str:
        config, tracker = self._config, self._tracker
        if tracker is None or self._kept is None:
            return ""
        name = f"{config.model.name}-{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S%f}"
        # that of an earlier process which was killed before the end is written again
        folder = tracker.journal.notes.get("model") or str(pathlib.Path(config.output) / name)
        tracker.journal.note("model", folder)
        record = TrainingRecord(
            training=tracker.journal.training,
            key=self._key,
            ranks=self._ranks.size,
            ended=time.time_ns() // 1_000_000,
            config=recorded_settings(config),
        )
        why = None
        try:
            save_servable(folder, model, config.model.name, config.model.options, self._contract, self._kept.vocabularies)
            write_record(pathlib.Path(folder), record)
            _write_metrics(folder, trained)
        except (OSError, RuntimeError) as error:  # torch says a full disk in an error of its own
            why = " ".join(str(error).split())
        if why is not None:  # outside, for the error would keep files open that were being written
            raise TrainingError(
                f"{folder}: the trained model cannot be written ({why}); make room there, or make it writable, and start the same command "
                "again: it goes on from the newest checkpoint, if one could be written"
            )
        log.info(
            "best weights: those of step %s of %s; the model is in %s", f"{trained.best_step:,}", f"{trained.steps:,}", folder
        )
        return folder

    def _register(self, tracker: Tracker, trained: TrainingResult) -> None:
        tracker.report({"best_step": trained.best_step}, trained.steps)
        if not self._try_to_register(tracker):
            log.warning(
                "the model is not registered; that is tried once more when the test split is scored, and later by: python "
                "jobs/register.py --model %s (tracking.uri=... for another store)",
                self.folder,
            )

    def _try_to_register(self, tracker: Tracker) -> bool:
        assert self._kept is not None, "the first rank has it"
        trial = self._config.max_steps is not None
        uri = tracker.register(self.folder, self._kept.example, move_alias=not trial)
        tracker.journal.note("registered", "yes" if uri is not None else "no")
        if uri is not None:
            log.info("logged to %s as %s%s", tracker.shown_uri, uri, "; alias unchanged, it is a trial" * trial)
        return uri is not None


def _write_metrics(folder: str, trained: TrainingResult) -> None:
    test = None if trained.test is None else undefined_as_none(trained.test.metrics)
    metrics = ModelMetrics(
        steps=trained.steps, best_step=trained.best_step, validation=undefined_as_none(trained.validation), test=test
    )
    write_record(pathlib.Path(folder), metrics)


if __name__ == "__main__":
    sys.exit(main())
