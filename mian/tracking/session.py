"""A tracked training on all ranks, from the opened samples to the registered model.

:func:`train` is what ``jobs/train.py`` does; :mod:`mian.tracking.tracked_run` has the parts that trainings of experiments share with it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mian.checkpoint.keys import key_of_any_epochs, training_contract, training_key
from mian.checkpoint.retention import CHECKPOINTS, ENDED, lock_path
from mian.checkpoint.store import CheckpointStore
from mian.checkpoint.training_lock import TrainingLock
from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import Ranks
from mian.evaluation.external_sort import SpillError
from mian.execution.device import choose_device
from mian.metrics import MetricError
from mian.stream import StreamError
from mian.tracking.journal import JOURNALS
from mian.tracking.model_keeper import ModelKeeper, SampleAttachments
from mian.tracking.records import Outcome
from mian.tracking.tracked_run import TRAINING_ERRORS, open_trainer, start_run, tracked_run
from mian.training import (
    ElasticSession,
    Streams,
    Trainer,
    TrainingError,
    open_streams,
    refuse_large_tables,
)

if TYPE_CHECKING:
    from mian.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def train(config: TrainConfig, session: ElasticSession, started: Callable[[], None]) -> None:
    """Train, track, keep and register a model. All ranks call this.

    A training that was stopped or killed goes on from its newest checkpoint.

    Args:
        config: The settings.
        session: The ranks, and whether this process is asked to stop.
        started: Called when the first step is about to run.

    Raises:
        TrainingStopped: A rank was asked to stop; a checkpoint is written.
        RankError: Another rank has failed.
        Exception: One of :data:`TRAINING_ERRORS`.
    """
    ranks = session.ranks
    with ExitStack() as stack:
        contract, streams, checkpoints = ranks.run_on_all_ranks(lambda: _open(config, ranks), TRAINING_ERRORS)
        key = checkpoints.folder.name
        lock = TrainingLock(lock_path(checkpoints.folder))
        ranks.run_on_all_ranks(lambda: stack.enter_context(lock) if ranks.is_first else None, TRAINING_ERRORS)
        attachments = ranks.run_on_all_ranks(
            lambda: SampleAttachments.read(contract, config) if ranks.is_first else None, TRAINING_ERRORS
        )
        tracker = _tracker(config, key) if ranks.is_first else None
        if ranks.broadcast_object(tracker is not None and _has_ended(tracker, checkpoints)):
            return
        store = checkpoints if ranks.is_first and config.checkpoint.enabled else None
        traces = Path(config.output) / "profiles" / key
        trainer, resumed = open_trainer(
            config,
            contract,
            streams,
            ranks,
            report=tracker.report if tracker else _report_nothing,
            store=store,
            saved=lambda: _saved(session, key, store),
            stopping=session.stopping,
            trace=traces / f"rank-{ranks.rank}.json" if config.profile else None,
        )
        session.keep_state(key, trainer)
        with tracked_run(
            lambda outcome: _end(tracker, outcome, checkpoints, traces if config.profile else None), session.restart_errors
        ):
            start_run(trainer, config, contract, ranks, tracker, lambda: _announce(contract, streams, trainer, config, resumed))
            started()
            keeper = ModelKeeper(config, contract, trainer, ranks, tracker, attachments, key)
            with session.interruptible():
                _run(trainer, keeper)


def _open(config: TrainConfig, ranks: Ranks) -> tuple[Contract, Streams, CheckpointStore]:
    """Open what one rank needs; where its machine lacks something, all ranks end here."""
    device = choose_device(config, ranks.local_rank)
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"output: {output} cannot be made a folder ({error}); name another one") from error
    contract = training_contract(config)
    refuse_large_tables(config, contract, ranks.size, ranks.local_size, device)
    folder = output / CHECKPOINTS / training_key(config, contract)
    ended = output / ENDED / key_of_any_epochs(config, contract) if config.checkpoint.keep_ended else None
    return (
        contract,
        open_streams(config, contract, ranks),
        CheckpointStore(folder, config.checkpoint.keep, config, contract, ended),
    )


def _run(trainer: Trainer, keeper: ModelKeeper) -> None:
    try:
        trained = trainer.run(keeper.keep)
    except (StreamError, MetricError, SpillError) as error:
        if not keeper.folder:
            raise
        raise keeper.scoring_failed(error) from error
    keeper.record_test(trained)
    keeper.register_late()


def _end(tracker: Tracker | None, outcome: Outcome, checkpoints: CheckpointStore, traces: Path | None) -> None:
    """End the run and remove what is not needed any more, in an order in which a kill costs nothing."""
    if outcome != "RUNNING":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # horovodrun sends it as soon as another rank has ended in an error
    if tracker is None:
        return
    if traces is not None:
        tracker.files(traces)
    complete = tracker.end(outcome)
    journal = tracker.journal
    if outcome == "FINISHED":
        journal.note("ended", "complete" if complete and journal.notes["registered"] == "yes" else "incomplete")
        _tidy(tracker, checkpoints)
    elif outcome == "FAILED" and complete and not checkpoints.folder.exists():
        journal.remove()


def _has_ended(tracker: Tracker, checkpoints: CheckpointStore) -> bool:
    """Whether an earlier process has finished this training and was killed before it could tidy up; tidy up then."""
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
        journal.move(journal.folder.with_name(Path(journal.notes["model"]).name))


def _announce(contract: Contract, streams: Streams, trainer: Trainer, config: TrainConfig, resumed: bool) -> None:
    missing = contract.missing_days(config.train_split)
    if missing:
        log.warning("%d days of split %s are not built, the first %s", len(missing), config.train_split, missing[0])
    progress = trainer.progress
    log.info(
        "%s: %s training samples, %s ranks, %s steps an epoch of %s samples each, %s samples an epoch left over",
        contract.name,
        f"{streams.train.rows:,}",
        progress.world_size,
        f"{streams.train.steps:,}",
        f"{config.batch_size * progress.world_size:,}",
        streams.train.rows_left_over,
    )
    if resumed:
        log.info("goes on after step %s, in epoch %d", f"{progress.step:,}", progress.epoch)


def _tracker(config: TrainConfig, key: str) -> Tracker:
    from mian.tracking.tracker import Tracker  # MLflow takes seconds to import, and only the first rank needs it

    return Tracker(config.tracking, Path(config.output) / JOURNALS / key)


def _saved(session: ElasticSession, key: str, store: CheckpointStore | None) -> dict[str, Any] | None:
    """The state to go on from: what rank 0 has in memory, or else its newest checkpoint."""
    saved = session.kept_state(key) if session.ranks.is_first else None
    return saved if saved is not None or store is None else store.newest()


def _report_nothing(metrics: Mapping[str, float], step: int) -> None:
    """Ranks other than the first report nothing."""
