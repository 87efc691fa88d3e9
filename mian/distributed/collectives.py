"""The ranks of a training: who am I, and what do the others have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt
import torch
from horovod.common.exceptions import HorovodInternalError

from mian.distributed.compression import Packing16, blocks, from_blocks
from mian.distributed.watchdog import ExchangeWatch
from mian.execution.threads import usable_cores
from mian.kernels import distinct, sum_by_place

Value = TypeVar("Value")
Scalar = TypeVar("Scalar", bound=np.generic)

_SHORTEST_NAP, _LONGEST_NAP, _NAP_SHARE = 5e-5, 1e-3, 0.125
"""Seconds between two looks at whether an exchange is over, at first and at last, and the share of the wait so far that they are."""


class RankError(RuntimeError):
    """Another rank could not go on; it has said why."""


class HungRankError(RuntimeError):
    """Another rank neither goes on nor ends."""


class Ranks:
    """Horovod's ranks; without a launcher there is one.

    Args:
        alone: whether this rank is to be the only one, whatever the launcher started: for work that others take no part in.
    """

    def __init__(self, alone: bool = False) -> None:
        hvd.init()
        self.rank: int = 0 if alone else hvd.rank()
        self.size: int = 1 if alone else hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.local_size: int = 1 if alone else hvd.local_size()
        self._by_cpu = True
        self._watch = ExchangeWatch(self.rank, self.size)
        self._packing: Packing16 | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone reports and talks to MLflow."""
        return self.rank == 0

    def compute_on(self, device: torch.device) -> None:
        """Say where this rank's tensors are; every rank must call it.

        Between GPUs they travel by NCCL, where Horovod is built with it and each rank has a GPU of its own: two ranks on one are an
        error of NCCL's. Otherwise they travel by way of the CPU.
        """
        if device.type == "cuda":
            torch.cuda.set_device(device)
        direct = device.type == "cuda" and hvd.nccl_built() and self.local_size <= torch.cuda.device_count()
        self._by_cpu = not all(self.gather_objects(bool(direct)))

    def _goes_by_cpu(self, tensor: torch.Tensor) -> bool:
        return self._by_cpu and tensor.device.type != "cpu"

    @property
    def exchange_seconds(self) -> float:
        """What exchanges have taken so far, waiting for other ranks included."""
        return self._watch.seconds

    def limit_exchanges(self, seconds: float) -> None:
        """End the exchanges that last longer, in an error."""
        self._watch.limit = seconds

    def pack_gradients(self, packing: Packing16 | None) -> None:
        """From now on gradients travel packed; None: as they are. All ranks say the same."""
        self._packing = packing

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Say plainly that another rank ended, or hangs, while this one worked with it, and which.

        Raises:
            HungRankError: a rank has not come to an exchange within the time-out; on the first of those that have.
            RankError: on the others then, and where a rank ended; in the place of Horovod's own error.
        """
        try:
            yield
        except HorovodInternalError as error:
            missing = self._watch.missing()
            who = "another rank" if not missing else f"rank {', '.join(map(str, missing))}"
            if missing and self._watch.waited:
                raise HungRankError(
                    f"{who} did not come to an exchange for {self._watch.waited} s: it hangs, was killed, or its host is cut off; the "
                    "training started again goes on from its newest checkpoint; exchange_timeout_seconds and horovodrun's "
                    "--gloo-timeout-seconds say how long ranks wait"
                ) from error
            raise RankError(
                f"{who} ended before this one, or hangs; what it said, or what the launcher says, tells why"
            ) from error

    @property
    def cores(self) -> int:
        """This rank's share of the machine's cores; at least one."""
        return max(1, usable_cores() // self.local_size)

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
        with self._watch:
            _meet()
            gathered: list[Value] = hvd.allgather_object(value)
        return gathered

    def mean_(self, value: torch.Tensor) -> None:
        """Put the mean over ranks in its place."""
        if self.size == 1:
            return
        here = value.cpu() if self._goes_by_cpu(value) else value
        with self._watch:
            _exchanged(hvd.allreduce_async_(here, op=hvd.Average))
        if here is not value:
            value.copy_(here)

    def mean_of_gradients(
        self, dense: torch.Tensor, tables: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """The mean over ranks of all gradients, in one exchange; of tables the rows travel that the ranks' batches hold.

        Packed gradients, see :meth:`pack_gradients`, are unpacked and then added up. Each rank is sent its part of the dense one by all
        ranks, and sends all of them the mean: as many numbers as a reduction sends. What travels is rounded twice, there and back; every
        rank has the mean as it traveled, its own part too, so that all have the same.

        Args:
            dense: its mean is put in its place; the last number is exactly 0 where all ranks' are, and NaN where one is.
            tables: by name, rows, int64 ``(N,)``, each once, another N on each rank; and their gradients, ``(N, width)``.

        Returns:
            Those of tables, of all ranks together: int64 ``(M,)``, each once, and ``(M, width)``.
        """
        if self.size == 1:
            return dict(tables)
        if self._goes_by_cpu(dense):
            here = dense.cpu()
            mean = self.mean_of_gradients(here, {name: (rows.cpu(), values.cpu()) for name, (rows, values) in tables.items()})
            dense.copy_(here)
            return {name: (rows.to(dense.device), values.to(dense.device)) for name, (rows, values) in mean.items()}
        with self._watch:
            parts = self._send_dense(dense)
            sent = {
                name: (
                    hvd.allgather_async(rows, name=f"{name}.rows"),
                    hvd.allgather_async(self._pack(values), name=f"{name}.values"),
                )
                for name, (rows, values) in tables.items()
            }
            reduced = self._send_mean(parts)
            all_rows = {name: _exchanged(of_rows) for name, (of_rows, _) in sent.items()}
        found = {name: distinct(rows) for name, rows in all_rows.items()}  # while the gradients travel
        with self._watch:
            all_values = {name: self._unpack(_exchanged(of_values)) for name, (_, of_values) in sent.items()}
            self._receive_mean(reduced, dense)
        return {
            name: (rows, sum_by_place(all_values[name].div_(self.size), places, len(rows)))
            for name, (rows, places) in found.items()
        }

    def swap(self, values: torch.Tensor, counts: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Send each rank its rows and get those that the ranks send; see :meth:`mian.layers.placement.Exchange.swap`."""
        if self._goes_by_cpu(values):
            swapped_here, counts = self.swap(values.cpu(), counts, name)
            return swapped_here.to(values.device), counts
        with self._watch, torch.inference_mode(mode=False):  # Horovod's own thread, which is not in that mode, writes what comes
            sent = hvd.alltoall_async(
                values.clone() if values.is_inference() else values, counts.int().cpu(), name=f"swap.{name}"
            )
            swapped: tuple[torch.Tensor, torch.Tensor] = _exchanged(sent)
        return swapped

    def swap_gradients(self, gradients: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """See :meth:`mian.layers.placement.Exchange.swap_gradients`."""
        return self._unpack(self.swap(self._pack(gradients), counts, "gradients")[0])

    def _send_dense(self, dense: torch.Tensor) -> int:
        if self._packing is None:
            return int(hvd.allreduce_async_(dense, op=hvd.Average, name="dense"))
        return int(hvd.alltoall_async(self._packing.pack(blocks(dense, self.size)), name="dense.parts"))

    def _send_mean(self, sent: int) -> int:
        if self._packing is None:
            return sent
        of_ranks = self._packing.unpack(_exchanged(sent)[0])
        mean = of_ranks.view(self.size, -1, of_ranks.shape[1]).mean(dim=0)
        return int(hvd.allgather_async(self._packing.pack(mean), name="dense.mean"))

    def _receive_mean(self, sent: int, dense: torch.Tensor) -> None:
        received = _exchanged(sent)
        if self._packing is not None:
            from_blocks(dense, self._packing.unpack(received))

    def _pack(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors if self._packing is None else self._packing.pack(vectors)

    def _unpack(self, packed: torch.Tensor) -> torch.Tensor:
        return packed if self._packing is None else self._packing.unpack(packed)

    def broadcast(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        if self.size == 1:
            return
        here = {name: tensor.cpu() if self._goes_by_cpu(tensor) else tensor for name, tensor in tensors.items()}
        with self._watch:
            _meet()
            hvd.broadcast_parameters(here, root_rank=0)
        for name, tensor in tensors.items():
            if here[name] is not tensor:
                tensor.copy_(here[name])

    def from_first(self, value: Value) -> Value:
        """The first rank's value."""
        if self.size == 1:
            return value
        with self._watch:
            _meet()
            # without a name it is called by its value's type, which differs between the ranks
            shared: Value = hvd.broadcast_object(value, root_rank=0, name="from_first")
        return shared

    def bring_to(self, rank: int, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Every rank's rows, ``(N,)`` of any type, on one rank, in the order of ranks; on the others none."""
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[rank] = len(rows)
        as_bytes = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
        brought, _ = self.swap(torch.from_numpy(as_bytes), counts, "bring_to")
        found: npt.NDArray[Scalar] = brought.numpy().view(rows.dtype).reshape(len(brought))
        return found


def _exchanged(handle: int) -> Any:
    """What an exchange brought, once it is over.

    Horovod's own ``synchronize`` looks again and again, and takes the interpreter's lock each time: a rank that waits would keep a core
    busy that other ranks and the threads that read its samples could use.

    Raises:
        HorovodInternalError: it failed.
    """
    began = time.perf_counter()
    while not hvd.poll(handle):
        time.sleep(min(max(_NAP_SHARE * (time.perf_counter() - began), _SHORTEST_NAP), _LONGEST_NAP))
    return hvd.synchronize(handle)


def _meet() -> None:
    """Wait until every rank is here, before an exchange that waits by Horovod's ``synchronize``."""
    _exchanged(hvd.allreduce_async(torch.zeros(1), name="meet"))
