"""Collective operations over the ranks of a training.

It is longer than other files because every operation shares the watchdog, the error translation and the polling of the others.
"""

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

from mian.distributed.compression import GradientCodec, blocks, from_blocks
from mian.distributed.watchdog import ExchangeWatchdog
from mian.execution.threads import usable_cores
from mian.kernels import distinct, sum_by_place

Value = TypeVar("Value")
Scalar = TypeVar("Scalar", bound=np.generic)

_SHORTEST_POLL, _LONGEST_POLL, _POLL_FRACTION = 5e-5, 1e-3, 0.125
"""The polling interval of an exchange: its shortest and longest, in seconds, and which fraction of the wait so far it is."""


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
        self._watchdog = ExchangeWatchdog(self.rank, self.size)
        self._codec: GradientCodec | None = None

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
        return self._watchdog.seconds

    def limit_exchanges(self, seconds: float) -> None:
        """End the exchanges that last longer, in an error."""
        self._watchdog.limit = seconds

    def compress_gradients(self, codec: GradientCodec | None) -> None:
        """From now on gradients travel packed; None: as they are. All ranks say the same."""
        self._codec = codec

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Say plainly that another rank ended, or hangs, while this one worked with it, and which.

        Raises:
            HungRankError: a rank has not come to an exchange within the time-out; on the first of those that have.
            RankError: on the others then, and where a rank ended; in the place of Horovod's own error.
        """
        try:
            yield
        except HorovodInternalError as error:
            missing = self._watchdog.missing()
            who = "another rank" if not missing else f"rank {', '.join(map(str, missing))}"
            if missing and self._watchdog.waited:
                raise HungRankError(
                    f"{who} did not come to an exchange for {self._watchdog.waited} s: it hangs, was killed, or its host is cut off; the "
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

    def run_on_all_ranks(self, step: Callable[[], Value], errors: tuple[type[Exception], ...]) -> Value:
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

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.gather_objects(None)

    def gather_objects(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        with self._watchdog:
            _barrier()
            gathered: list[Value] = hvd.allgather_object(value)
        return gathered

    def allreduce_mean_(self, value: torch.Tensor) -> None:
        """Put the mean over ranks in its place."""
        if self.size == 1:
            return
        here = value.cpu() if self._goes_by_cpu(value) else value
        with self._watchdog:
            _synchronize(hvd.allreduce_async_(here, op=hvd.Average))
        if here is not value:
            value.copy_(here)

    def allreduce_gradients(
        self, dense: torch.Tensor, tables: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """The mean over ranks of all gradients, in one exchange; of tables the rows travel that the ranks' batches hold.

        Packed gradients, see :meth:`compress_gradients`, are unpacked and then added up. Each rank is sent its part of the dense one by all
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
            mean = self.allreduce_gradients(here, {name: (rows.cpu(), values.cpu()) for name, (rows, values) in tables.items()})
            dense.copy_(here)
            return {name: (rows.to(dense.device), values.to(dense.device)) for name, (rows, values) in mean.items()}
        with self._watchdog:
            dense_mean = _DenseMean(dense, self.size, self._codec)
            sent = {
                name: (
                    hvd.allgather_async(rows, name=f"{name}.rows"),
                    hvd.allgather_async(self._compress(values), name=f"{name}.values"),
                )
                for name, (rows, values) in tables.items()
            }
            dense_mean.share()
            all_rows = {name: _synchronize(rows_handle) for name, (rows_handle, _) in sent.items()}
        found = {name: distinct(rows) for name, rows in all_rows.items()}  # while the gradients travel
        with self._watchdog:
            all_values = {name: self._decompress(_synchronize(values_handle)) for name, (_, values_handle) in sent.items()}
            dense_mean.receive()
        return {
            name: (rows, sum_by_place(all_values[name].div_(self.size), places, len(rows)))
            for name, (rows, places) in found.items()
        }

    def all_to_all(self, values: torch.Tensor, counts: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Send each rank its rows and get those that the ranks send; see :meth:`mian.layers.placement.Exchange.all_to_all`."""
        if self._goes_by_cpu(values):
            swapped_here, counts = self.all_to_all(values.cpu(), counts, name)
            return swapped_here.to(values.device), counts
        # Horovod's own thread, which is not in inference mode, writes what comes
        with self._watchdog, torch.inference_mode(mode=False):
            sent = hvd.alltoall_async(
                values.clone() if values.is_inference() else values, counts.int().cpu(), name=f"all_to_all.{name}"
            )
            swapped: tuple[torch.Tensor, torch.Tensor] = _synchronize(sent)
        return swapped

    def all_to_all_gradients(self, gradients: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """See :meth:`mian.layers.placement.Exchange.all_to_all_gradients`."""
        return self._decompress(self.all_to_all(self._compress(gradients), counts, "gradients")[0])

    def _compress(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors if self._codec is None else self._codec.compress(vectors)

    def _decompress(self, packed: torch.Tensor) -> torch.Tensor:
        return packed if self._codec is None else self._codec.decompress(packed)

    def broadcast(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        if self.size == 1:
            return
        here = {name: tensor.cpu() if self._goes_by_cpu(tensor) else tensor for name, tensor in tensors.items()}
        with self._watchdog:
            _barrier()
            hvd.broadcast_parameters(here, root_rank=0)
        for name, tensor in tensors.items():
            if here[name] is not tensor:
                tensor.copy_(here[name])

    def broadcast_object(self, value: Value) -> Value:
        """The value of rank 0, on every rank."""
        if self.size == 1:
            return value
        with self._watchdog:
            _barrier()
            # without a name it is called by its value's type, which differs between the ranks
            shared: Value = hvd.broadcast_object(value, root_rank=0, name="broadcast_object")
        return shared

    def gather_to(self, rank: int, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Every rank's rows, ``(N,)`` of any type, on one rank, in the order of ranks; on the others none."""
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[rank] = len(rows)
        as_bytes = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
        brought, _ = self.all_to_all(torch.from_numpy(as_bytes), counts, "gather_to")
        found: npt.NDArray[Scalar] = brought.numpy().view(rows.dtype).reshape(len(brought))
        return found


class _DenseMean:
    """The mean over ranks of a dense gradient, on its way.

    Without a codec it is one allreduce. With one, each rank is sent its block by all ranks, and ``share`` sends its mean to all of them:
    Horovod has no reduction that could add up what is compressed. Other exchanges may start between the steps.

    Args:
        dense: the gradient, of one shape on all ranks; :meth:`receive` puts the mean in its place.
        size: how many ranks there are.
        codec: what compresses it, if anything does.
    """

    def __init__(self, dense: torch.Tensor, size: int, codec: GradientCodec | None) -> None:
        self._dense, self._size, self._codec = dense, size, codec
        self._handle: int
        if codec is None:
            self._handle = hvd.allreduce_async_(dense, op=hvd.Average, name="dense")
        else:
            self._handle = hvd.alltoall_async(codec.compress(blocks(dense, size)), name="dense.parts")

    def share(self) -> None:
        """Send the mean of this rank's block, once all ranks' parts of it are here."""
        if self._codec is not None:
            parts = self._codec.decompress(_synchronize(self._handle)[0])
            mean = parts.view(self._size, -1, parts.shape[1]).mean(dim=0)
            self._handle = hvd.allgather_async(self._codec.compress(mean), name="dense.mean")

    def receive(self) -> None:
        """Wait for the mean."""
        received = _synchronize(self._handle)
        if self._codec is not None:
            from_blocks(self._dense, self._codec.decompress(received))


def _synchronize(handle: int) -> Any:
    """What an exchange brought, once it is over.

    Horovod's own ``synchronize`` looks again and again, and takes the interpreter's lock each time: a rank that waits would keep a core
    busy that other ranks and the threads that read its samples could use.

    Raises:
        HorovodInternalError: it failed.
    """
    began = time.perf_counter()
    while not hvd.poll(handle):
        time.sleep(min(max(_POLL_FRACTION * (time.perf_counter() - began), _SHORTEST_POLL), _LONGEST_POLL))
    return hvd.synchronize(handle)


def _barrier() -> None:
    """Wait until every rank is here, before an exchange that waits by Horovod's ``synchronize``."""
    _synchronize(hvd.allreduce_async(torch.zeros(1), name="barrier"))
