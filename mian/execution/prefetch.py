"""Batches on their way to where the model is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from mian.execution.device_batch import DeviceBatch, to_device
from mian.layers import FieldEmbedding, Lookup, Prepared
from mian.models import ClickModel

AHEAD = 2
"""So many batches are on a GPU before they are asked for."""
SHAPES = 16
"""So many different numbers of positions, and of distinct rows, batches of one size have where they are to have few."""

Batch = Mapping[str, torch.Tensor]
Result = TypeVar("Result")


def on_device(model: ClickModel, batch: Batch, pin: bool = False, bucket_shapes: bool = False) -> Batch:
    """A batch on the model's device; on the CPU the batch itself.

    What can be told from ids and lengths alone is found before it leaves the CPU: that an id is none of its vocabulary's, where the
    behaviors lie, which rows are distinct. A GPU would have to be waited for to learn how many they are. All of it travels as one piece.

    Args:
        model: which is to read it.
        batch: columns by name, on the CPU.
        pin: whether it goes by way of pinned memory, on the current stream, and is not waited for.
        bucket_shapes: whether numbers of positions and of distinct rows are rounded up, to one of :data:`SHAPES` of them, so that the same
            ones come again and again.

    Raises:
        IndexError: an id is not in its vocabulary.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        return batch
    return to_device(prepared(model, batch, bucket_shapes), device, pin)


def prepared(model: ClickModel, batch: Batch, bucket_shapes: bool = False) -> Prepared:
    """A batch on the CPU, with what the embeddings of a model look up in it; arguments and errors are those of :func:`on_device`."""
    lookups: dict[bool, Lookup] = {}
    for embedding in model.modules():
        if isinstance(embedding, FieldEmbedding) and embedding.shared not in lookups:
            lookups[embedding.shared] = _lookup(embedding, batch, bucket_shapes)
    return Prepared(batch, lookups)


def _lookup(embedding: FieldEmbedding, batch: Batch, bucket_shapes: bool) -> Lookup:
    if not bucket_shapes:
        return embedding.lookup(batch).resolved()
    places = max((batch[name].numel() for name in embedding.columns["behaviors"]), default=0)
    lookup = embedding.lookup(batch, multiple=-(-places // SHAPES))
    return lookup.resolved(multiple=1 if lookup.rows is None else -(-len(lookup.rows) // SHAPES))


@contextmanager
def prefetch_to_device(model: ClickModel, batches: Iterator[Batch], bucket_shapes: bool = False) -> Iterator[Iterator[Batch]]:
    """Batches on the model's device, in their order; ``bucket_shapes``: see :func:`on_device`.

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
            return on_device(model, batch, True, bucket_shapes), stream.record_event()

    with prefetch(batches, send) as ahead:
        yield (_received(batch, arrived, device) for batch, arrived in ahead)


def _received(batch: Batch, arrived: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch, for the current stream, which waits for it where it has not arrived; the CPU does not."""
    here = torch.cuda.current_stream(device)
    here.wait_event(arrived)
    assert isinstance(batch, DeviceBatch), "what was sent is one"
    batch.memory.record_stream(here)  # else it would be the next batch's as soon as no name holds it, in use or not
    return batch


@contextmanager
def prefetch(batches: Iterator[Batch], send: Callable[[Batch], Result]) -> Iterator[Iterator[Result]]:
    """Read and send batches in another thread, :data:`AHEAD` of them before they are asked for.

    What reading or sending raises is raised where the batch is asked for. After the ``with`` block nobody reads any more.

    Args:
        batches: read by that thread alone.
        send: what becomes of each.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def one() -> Result | None:
        batch = next(batches, None)
        return None if batch is None else send(batch)

    def all_of_them() -> Iterator[Result]:
        waiting = deque(thread.submit(one) for _ in range(AHEAD))
        while (result := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(one))
            yield result

    try:
        yield all_of_them()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
