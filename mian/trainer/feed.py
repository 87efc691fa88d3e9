"""Batches on their way to where the model is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from mian.kernels import moved
from mian.layers import FieldEmbedding, Prepared
from mian.models import ClickModel

AHEAD = 2
"""So many batches are on a GPU before they are asked for."""

Batch = Mapping[str, torch.Tensor]
Sent = TypeVar("Sent")


def beside(model: ClickModel, batch: Batch, pin: bool = False) -> Batch:
    """A batch on the model's device; on the CPU the batch itself.

    What can be told from ids and lengths alone is found before it leaves the CPU: that an id is none of its vocabulary's, where the
    behaviors lie, which rows are distinct. A GPU would have to be waited for to learn how many they are.

    Args:
        model: which is to read it.
        batch: columns by name, on the CPU.
        pin: whether it goes by way of pinned memory, on the current stream, and is not waited for.

    Raises:
        IndexError: an id is not in its vocabulary.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        return batch
    columns = {name: moved(column, device, pin) for name, column in batch.items()}
    embeddings = [module for module in model.modules() if isinstance(module, FieldEmbedding)]
    return Prepared(columns, embeddings[0].lookup(batch).to(device, pin)) if len(embeddings) == 1 else columns


@contextmanager
def fed(model: ClickModel, batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """Batches on the model's device, in their order.

    A GPU gets them on a stream of its own, from a thread of its own, while it works on those before; on the CPU they are what they were,
    read when they are asked for.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        yield batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return beside(model, batch, pin=True), stream.record_event()

    with reading_ahead(batches, send) as sent:
        yield (_received(batch, arrived, device) for batch, arrived in sent)


def _received(batch: Batch, arrived: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch, for the current stream, which waits for it where it has not arrived; the CPU does not."""
    here = torch.cuda.current_stream(device)
    here.wait_event(arrived)
    of_lookup = batch.lookup.tensors() if isinstance(batch, Prepared) else []
    for tensor in (*batch.values(), *of_lookup):
        tensor.record_stream(here)  # else its memory would be the next batch's as soon as no name holds it, in use or not
    return batch


@contextmanager
def reading_ahead(batches: Iterator[Batch], send: Callable[[Batch], Sent]) -> Iterator[Iterator[Sent]]:
    """Read and send batches in another thread, :data:`AHEAD` of them before they are asked for.

    What reading or sending raises is raised where the batch is asked for. After the ``with`` block nobody reads any more.

    Args:
        batches: read by that thread alone.
        send: what becomes of each.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def one() -> Sent | None:
        batch = next(batches, None)
        return None if batch is None else send(batch)

    def all_of_them() -> Iterator[Sent]:
        waiting = deque(thread.submit(one) for _ in range(AHEAD))
        while (sent := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(one))
            yield sent

    try:
        yield all_of_them()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
