"""The parts of a tracked training that ``jobs/train.py`` and experiments share: opening it, its run in MLflow, its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mian.checkpoint.store import CheckpointError, CheckpointStore
from mian.checkpoint.training_lock import AlreadyRunningError
from mian.config import TrainConfig
from mian.contract import Contract, ContractError
from mian.distributed.collectives import HungRankError, Ranks
from mian.evaluation.external_sort import SpillError
from mian.execution.device import DeviceError
from mian.models import ModelError
from mian.serving import ServableError
from mian.stream import StreamError
from mian.tracking.errors import TrackingError
from mian.tracking.records import Outcome
from mian.training import (
    CarryOverError,
    DisagreementError,
    Streams,
    TableMemoryError,
    Trainer,
    TrainingError,
    TrainingStopped,
)
from mian.training.trainer import Report

if TYPE_CHECKING:
    from mian.tracking.initial_model import InitialModel
    from mian.tracking.tracker import Tracker  # MLflow takes seconds to import, and only the first rank needs it

TRAINING_ERRORS = (
    AlreadyRunningError,
    CarryOverError,
    CheckpointError,
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
"""What ends a training with a message for its user. One rank's error ends all ranks."""


def open_trainer(
    config: TrainConfig,
    contract: Contract,
    streams: Streams,
    ranks: Ranks,
    *,
    report: Report,
    store: CheckpointStore | None,
    saved: Callable[[], Mapping[str, Any] | None],
    stopping: Callable[[], bool],
    trace: Path | None = None,
) -> tuple[Trainer, bool]:
    """Make a trainer that goes on where the training was, or that starts with the weights of ``init_from``. All ranks call this.

    Args:
        config: The settings.
        contract: The contract of the samples.
        streams: The splits.
        ranks: The ranks of the training.
        report: See :class:`mian.training.Trainer`, likewise ``store``, ``stopping`` and ``trace``.
        store: See there.
        saved: Returns the state to go on from on rank 0, or None; returns None on the other ranks.
        stopping: See there.
        trace: See there.

    Returns:
        The trainer, and whether it goes on from a saved state.

    Raises:
        RankError: Another rank has failed.
        Exception: One of :data:`TRAINING_ERRORS`.
    """
    trainer = ranks.run_on_all_ranks(
        lambda: Trainer(config, contract, streams, ranks, report, store, stopping, trace), TRAINING_ERRORS
    )
    # no name holds the saved state here: it is as large as everything that is trained
    resumed = trainer.resume(ranks.run_on_all_ranks(saved, TRAINING_ERRORS))
    if config.init_from is not None and not resumed:
        initial = ranks.run_on_all_ranks(lambda: _initial_model(config, contract) if ranks.is_first else None, TRAINING_ERRORS)
        trainer.begin_with(*((initial.model, initial.moments) if initial is not None else (None, None)))
        trainer.progress.parent = ranks.broadcast_object(initial.parent.model_dump_json() if initial is not None else None)
    return trainer, resumed


def start_run(
    trainer: Trainer,
    config: TrainConfig,
    contract: Contract,
    ranks: Ranks,
    tracker: Tracker | None,
    announce: Callable[[], None],
) -> None:
    """Start the run in MLflow, or continue it, and tell all ranks its id. All ranks call this.

    Args:
        trainer: Its progress gets the id of the run; any rank may be the first one next time.
        config: The settings.
        contract: The contract of the samples.
        ranks: The ranks of the training.
        tracker: On rank 0.
        announce: Called on rank 0 before the run starts.

    Raises:
        TrackingError: The store can never take the run; on rank 0.
        RankError: On the other ranks then.
    """

    def start() -> None:
        if ranks.is_first and tracker is not None:
            announce()
            progress = trainer.progress
            tracker.start(config.model_dump() | {"ranks": ranks.size}, contract, config.samples, progress.run_id)
            progress.run_id = tracker.run_id or progress.run_id

    ranks.run_on_all_ranks(start, (TrackingError,))
    trainer.progress.run_id = ranks.broadcast_object(trainer.progress.run_id)


@contextmanager
def tracked_run(end: Callable[[Outcome], None], restart_errors: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Call ``end`` with the outcome of the block.

    Args:
        end: Gets ``FINISHED``, ``KILLED`` if the training was asked to stop, ``RUNNING`` if it goes on after one of ``restart_errors``,
            and ``FAILED`` otherwise.
        restart_errors: See :attr:`mian.training.ElasticSession.restart_errors`.
    """
    outcome: Outcome = "FAILED"
    try:
        yield
        outcome = "FINISHED"
    except TrainingStopped:
        outcome = "KILLED"
        raise
    except restart_errors:
        outcome = "RUNNING"
        raise
    finally:
        end(outcome)


def _initial_model(config: TrainConfig, contract: Contract) -> InitialModel:
    from mian.tracking.initial_model import initial_model  # as above

    return initial_model(config, contract)
