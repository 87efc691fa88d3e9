"""Elastic training: when ranks leave or join, the training continues with what the remaining ranks have in memory."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import horovod.torch as hvd
from horovod.common.elastic import State, run_fn
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from mian.distributed.collectives import Ranks
from mian.distributed.rendezvous import Rendezvous
from mian.distributed.watchdog import gloo_timeout
from mian.training.outcome import TrainingError, TrainingStopped
from mian.training.trainer import Trainer

log = logging.getLogger(__name__)

Value = TypeVar("Value")


class ElasticSession(State):  # type: ignore[misc]
    """The current set of ranks, and the state that this process keeps when the set changes.

    Launched with ``horovodrun --host-discovery-script``, ranks may be killed, asked to stop, or join at any moment. The ranks that are
    there then form a new set, run the job again from its beginning, and continue where :meth:`kept_state` says. Launched otherwise, the
    set of ranks never changes.

    Nothing is copied for that while a training runs. The kept state is the training's own tensors, which a failed exchange between ranks
    does not touch. A rank that joins gets them from rank 0, which is the rank that has been there longest.

    Args:
        stop_requested: Returns whether this process was asked to stop.

    Attributes:
        ranks: who takes part.
        elastic: Whether the set of ranks may change.
    """

    def __init__(self, stop_requested: Callable[[], bool]) -> None:
        super().__init__(bcast_object=None, get_rank=None)
        self.elastic = os.environ.get("HOROVOD_ELASTIC") == "1"
        self._rendezvous: Rendezvous | None = None
        if self.elastic and not hvd.nccl_built():  # Horovod's NCCL must be told that it is elastic, and then does as Horovod does
            self._rendezvous = Rendezvous(gloo_timeout())
            del os.environ["HOROVOD_ELASTIC"]  # else Horovod asks for a place by itself
            self._rendezvous.meet(again=False)
        self.ranks = Ranks()
        self._stop_requested = stop_requested
        self._hosts_changed = threading.Event()
        self._kept_state: tuple[str, Trainer] | None = None

    def run(self, job: Callable[[], Value]) -> Value:
        """Run the job, and run it again whenever the set of ranks changes.

        Raises:
            HorovodInternalError: Another rank has ended, and no new set of ranks can form.
        """

        def with_these_ranks(_: State) -> Value:
            self.ranks = Ranks()
            return job()

        return run_fn(with_these_ranks, self._meet_again)(self) if self.elastic else job()

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """See :meth:`Ranks.translate_errors`, of the ranks that take part when the error comes."""
        try:
            yield
        except HorovodInternalError as error:
            with self.ranks.translate_errors():
                raise error

    def _meet_again(self) -> None:
        hvd.shutdown()
        if self._rendezvous is not None:
            self._rendezvous.meet(again=True)
        hvd.init()

    def stopping(self) -> bool:
        """Whether this rank wants the training to pause after a step; see :class:`Trainer`."""
        return self._stop_requested() or self._hosts_changed.is_set()

    def keep_state(self, key: str, trainer: Trainer) -> None:
        """Take a trainer's state along, in the place of what was held.

        Args:
            key: of the training, see :func:`mian.checkpoint.keys.training_key`.
            trainer: Its state is taken when the set of ranks changes.
        """
        self._kept_state = key, trainer

    def kept_state(self, key: str) -> dict[str, Any] | None:
        """The state kept from the previous set of ranks, for :meth:`Trainer.resume`.

        None where this process is new; and where tables are sharded, for a rank that is gone took its rows with it.

        Raises:
            TrainingError: the samples are others than when the training began.
        """
        if self._kept_state is None:
            return None
        if self._kept_state[0] != key:
            raise TrainingError("the samples were built anew while they were trained on; start the training again")
        if self._kept_state[1].model.is_sharded:
            return None
        return self._kept_state[1].state()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Wrap work that a change of the ranks may interrupt.

        Raises:
            TrainingStopped: This process was asked to stop; if the set of ranks cannot change, any process was.
            HostsUpdatedInterrupt: ranks come or leave, and this one stays.
        """
        try:
            yield
            if self.elastic:
                self.ranks.limit_exchanges(math.inf)  # however long the model takes to be kept
                self.ranks.barrier()  # for the first one, which keeps the model: when it is killed, another one does
        except TrainingStopped:
            if not self.elastic:
                raise
            if self._stop_requested():
                raise
            self._hosts_changed.clear()
            raise HostsUpdatedInterrupt(skip_sync=False) from None

    @property
    def restart_errors(self) -> tuple[type[Exception], ...]:
        """The errors that end a set of ranks, after which the job runs again."""
        return (HorovodInternalError, HostsUpdatedInterrupt) if self.elastic else ()

    def on_hosts_updated(self, timestamp: int, update: int) -> None:
        """The launcher says so to the first rank, in a thread of its own; it travels to the others with the gradients."""
        self._hosts_changed.set()

    def restore(self) -> None:
        """Another rank has ended; nothing is to be undone."""
        log.warning("rank %d: another rank has ended; those that are left go on", self.ranks.rank)
        self._hosts_changed.clear()

    def sync(self) -> None:
        """Nothing: :meth:`Trainer.resume` gives every rank what the first one has."""

    def on_reset(self) -> None:
        """Nothing: Horovod's own would forget what the launcher said while it waited for a new rank."""
