"""The ranks of a training: who am I, and what do the others have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import torch
from horovod.common.exceptions import HorovodInternalError

from mian.kernels import distinct, sum_by_place

Value = TypeVar("Value")

#: Horovod's own, where the launcher names no other.
GLOO_SECONDS = 30


class RankError(RuntimeError):
    """Another rank could not go on; it has said why."""


@contextmanager
def other_ranks_needed() -> Iterator[None]:
    """Say plainly that another rank ended while this one worked with it.

    Raises:
        RankError: in the place of Horovod's own error.
    """
    try:
        yield
    except HorovodInternalError as error:
        raise RankError(
            "another rank ended before this one, or was out of reach for the "
            f"{os.environ.get('HOROVOD_GLOO_TIMEOUT_SECONDS', GLOO_SECONDS)} seconds of horovodrun's --gloo-timeout-seconds; "
            "what it said, or what the launcher says, tells why"
        ) from error


class Ranks:
    """Horovod's ranks; without a launcher there is one."""

    def __init__(self) -> None:
        hvd.init()
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self._local_size: int = hvd.local_size()

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone reports and talks to MLflow."""
        return self.rank == 0

    def default_threads(self) -> int:
        """The machine's cores over its ranks, at least one."""
        return max(1, len(os.sched_getaffinity(0)) // self._local_size)

    def together(self, step: Callable[[], Value], errors: tuple[type[Exception], ...]) -> Value:
        """Run a step on every rank; where it fails on some, it fails on all.

        Raises:
            Exception: of the kinds in ``errors``: this rank's own, on the first rank that has one.
            RankError: another rank failed, or an earlier rank says the same.
        """
        error: Exception | None = None
        try:
            value = step()
        except errors as caught:
            error = caught
        failed = [rank for rank, bad in enumerate(self.gather_objects(error is not None)) if bad]
        if not failed:
            return value
        if error is not None and self.rank == failed[0]:
            raise error
        raise RankError(f"rank {failed[0]} could not go on")

    def wait(self) -> None:
        """Wait until every rank is here."""
        self.gather_objects(None)

    def gather_objects(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        gathered: list[Value] = hvd.allgather_object(value)
        return gathered

    def gather_rows(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """All ranks' rows under one another, in the order of ranks; ranks may have different numbers of rows."""
        if self.size == 1:
            return values
        gathered: npt.NDArray[np.generic] = hvd.allgather(torch.from_numpy(np.ascontiguousarray(values))).numpy()
        return gathered

    def mean_(self, value: torch.Tensor) -> None:
        """Put the mean over ranks in its place."""
        if self.size > 1:
            hvd.allreduce_(value, op=hvd.Average)

    def mean_of_rows(self, rows: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean over ranks of a table's gradient; what travels are the rows that the ranks' batches hold.

        Args:
            rows: int64 ``(N,)``, each once; another N on each rank.
            gradients: ``(N, width)``, of these rows.

        Returns:
            The same of all ranks together: int64 ``(M,)``, each once, and ``(M, width)``.
        """
        if self.size == 1:
            return rows, gradients
        gathered = hvd.allgather_async(rows, name="rows"), hvd.allgather_async(gradients, name="gradients")
        together, places = distinct(hvd.synchronize(gathered[0]))
        return together, sum_by_place(hvd.synchronize(gathered[1]).div_(self.size), places, len(together))

    def broadcast(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        if self.size > 1:
            hvd.broadcast_parameters(dict(tensors), root_rank=0)

    def from_first(self, value: Value) -> Value:
        """The first rank's value."""
        if self.size == 1:
            return value
        shared: Value = hvd.broadcast_object(
            value, root_rank=0, name="from_first"
        )  # else the name is that of its type, on each rank
        return shared
