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
    """Another rank failed or ended, so this one cannot go on. The other rank's own error gives the reason."""


class HungRankError(RuntimeError):
    """Another rank did not come to an exchange within the time-out."""


class Ranks:
    """Horovod's ranks; without a launcher there is one.

    A method that exchanges values must be called by all ranks, in the same order. It waits for the slowest rank. Where a rank ended or
    hangs, it raises ``HorovodInternalError``, which :meth:`translate_errors` turns into an error that names the rank.

    Args:
        alone: whether this rank is to be the only one, whatever the launcher started: for work that others take no part in.

    Attributes:
        rank: the number of this rank, from 0 to ``size - 1``.
        size: how many ranks there are.
        local_rank: the number of this rank among those on its host, from 0.
        local_size: how many ranks are on this host.
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
        """Set the device of this rank's tensors; an exchange.

        NCCL exchanges the tensors if, on all ranks, they are on a GPU, Horovod is built with NCCL, and each rank of the host has a GPU
        of its own (NCCL refuses two ranks on one GPU). Otherwise tensors on a GPU are copied to the CPU for each exchange, and back.

        Args:
            device: where the tensors of this rank are; a GPU becomes torch's current one.
        """
        if device.type == "cuda":
            torch.cuda.set_device(device)
        direct = device.type == "cuda" and hvd.nccl_built() and self.local_size <= torch.cuda.device_count()
        self._by_cpu = not all(self.gather_objects(bool(direct)))

    def _goes_by_cpu(self, tensor: torch.Tensor) -> bool:
        return self._by_cpu and tensor.device.type != "cpu"

    @property
    def exchange_seconds(self) -> float:
        """Seconds that this rank has spent in exchanges so far; waiting for other ranks counts."""
        return self._watchdog.seconds

    def limit_exchanges(self, seconds: float) -> None:
        """Limit how long an exchange may last; one that lasts longer ends in an error on this rank and on all that wait.

        Args:
            seconds: the limit; infinity for none.
        """
        self._watchdog.limit = seconds

    def compress_gradients(self, codec: GradientCodec | None) -> None:
        """Compress the gradients of all later exchanges.

        Args:
            codec: the compression, the same on all ranks; None for none.
        """
        self._codec = codec

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Replace Horovod's error of an exchange by one that names the rank that ended or hangs.

        Raises:
            HungRankError: a rank did not come to an exchange within the time-out. Only the first of the waiting ranks raises it.
            RankError: a rank ended; or a rank hangs, and an earlier rank raises the error above.
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
        """Run a step on every rank; if it fails on any rank, all ranks raise an error.

        Args:
            step: the work of this rank.
            errors: the kinds of errors of ``step`` that the other ranks are told of. Any other error goes through at once.

        Returns:
            What ``step`` returned on this rank.

        Raises:
            Exception: an error of the kinds in ``errors``, on the lowest rank that has one.
            RankError: on all other ranks then.
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
        """Wait until every rank has called this."""
        self.gather_objects(None)

    def gather_objects(self, value: Value) -> list[Value]:
        """Give every rank the values of all ranks.

        Args:
            value: this rank's value; anything that pickle takes.

        Returns:
            ``size`` values, in the order of ranks.
        """
        if self.size == 1:
            return [value]
        with self._watchdog:
            _barrier()
            gathered: list[Value] = hvd.allgather_object(value)
        return gathered

    def allreduce_mean_(self, value: torch.Tensor) -> None:
        """Replace a tensor by its mean over all ranks, in place.

        Args:
            value: floats of any shape; the same shape and type on all ranks.
        """
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
        """Compute the mean over ranks of all gradients of a step, in one exchange.

        Of an embedding table only those rows are sent that the batch of a rank holds.

        With :meth:`compress_gradients`, the dense gradient is cut into one part for each rank. Each rank receives its part from all
        ranks, decompresses the parts, adds them up in float32, and sends the mean of the part to all ranks. This sends as many numbers as
        an all-reduce. Each number is rounded twice, once on each way. A rank also uses the rounded mean of its own part, so that all
        ranks end with the same numbers.

        Args:
            dense: the dense gradient, ``(K,)``, the same K on all ranks. The mean replaces it in place. The last number of the mean is
                exactly 0 if it is 0 on all ranks, and NaN if it is NaN on any.
            tables: by name of the table, the row numbers, int64 ``(N,)``, without repetitions, and the gradients of these rows,
                float32 ``(N, width)``. N may differ between ranks.

        Returns:
            By name of the table, the row numbers of all ranks together, int64 ``(M,)``, without repetitions, and the mean gradients of
            these rows, float32 ``(M, width)``. A rank that lacks a row counts as a gradient of 0.
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
        """Send each rank some rows and receive rows from each; :meth:`mian.layers.placement.Exchange.all_to_all` gives the shapes."""
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
        """The same for gradients, compressed on the way; see :meth:`mian.layers.placement.Exchange.all_to_all_gradients`."""
        return self._decompress(self.all_to_all(self._compress(gradients), counts, "gradients")[0])

    def _compress(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors if self._codec is None else self._codec.compress(vectors)

    def _decompress(self, packed: torch.Tensor) -> torch.Tensor:
        return packed if self._codec is None else self._codec.decompress(packed)

    def broadcast(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace tensors by those of rank 0, in place.

        Args:
            tensors: by name; the same names, shapes and types on all ranks.
        """
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
        """Give every rank the value of rank 0.

        Args:
            value: anything that pickle takes; only that of rank 0 matters.

        Returns:
            The value of rank 0.
        """
        if self.size == 1:
            return value
        with self._watchdog:
            _barrier()
            # without a name it is called by its value's type, which differs between the ranks
            shared: Value = hvd.broadcast_object(value, root_rank=0, name="broadcast_object")
        return shared

    def gather_to(self, rank: int, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Bring the rows of all ranks to one rank.

        Args:
            rank: the rank that receives the rows.
            rows: this rank's rows, ``(N,)``, of a type with a fixed size, the same on all ranks. N may differ between ranks.

        Returns:
            On ``rank`` the rows of all ranks, in the order of ranks; on the others an empty array.
        """
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
