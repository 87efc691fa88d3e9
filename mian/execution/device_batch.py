"""A batch in one piece of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mian.layers import Prepared

_ALIGNED = 16

MemoryLayout = tuple[tuple[str, torch.dtype, torch.Size], ...]
"""Of all tensors of a batch, in their order: the column's name, where it is one, type and shape."""
Place = tuple[torch.Tensor, int, int]
"""A tensor of a batch, and where its bytes begin and end."""


class DeviceBatch(Prepared):
    """A batch whose tensors, those of its lookups too, lie one after the other in one piece of memory.

    Args:
        batch: of which it has all but the values.
        memory: uint8, what the values are read from; see :func:`to_device`.
        places: where in it, see :func:`_places`.

    Attributes:
        memory: The piece of memory, uint8.
        memory_layout: two batches of one layout differ in their values alone.
    """

    def __init__(self, batch: Prepared, memory: torch.Tensor, places: Sequence[Place]) -> None:
        views = (memory[start:stop].view(tensor.dtype).view(tensor.shape) for tensor, start, stop in places)
        moved = batch.map(lambda _: next(views))
        super().__init__(moved, moved.lookups)
        self.memory = memory
        names = [*batch, *[""] * (len(places) - len(batch))]
        self.memory_layout: MemoryLayout = tuple(
            (name, tensor.dtype, tensor.shape) for name, (tensor, _, _) in zip(names, places, strict=True)
        )

    def at(self, memory: torch.Tensor) -> DeviceBatch:
        """The batch that has this layout and whose values lie in other memory of the same size."""
        return DeviceBatch(self, memory, _places(self))


def to_device(batch: Prepared, device: torch.device, pin: bool = False) -> DeviceBatch:
    """Send a batch that lies on the CPU to another device, as one piece.

    Args:
        batch: The batch, on the CPU.
        device: where to.
        pin: whether it goes by way of pinned memory, on the current stream, and is not waited for.
    """
    places = _places(batch)
    memory = torch.empty(places[-1][2] if places else 0, dtype=torch.uint8, pin_memory=pin)
    for tensor, start, stop in places:
        memory[start:stop].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    return DeviceBatch(batch, memory.to(device, non_blocking=pin), places)


def _places(batch: Prepared) -> list[Place]:
    """The tensors of a batch, in their order, and of each where its bytes begin and end."""
    tensors: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        tensors.append(tensor)
        return tensor

    batch.map(note)
    return list(_one_after_the_other(tensors))


def _one_after_the_other(tensors: list[torch.Tensor]) -> Iterator[Place]:
    end = 0
    for tensor in tensors:
        start = -(-end // _ALIGNED) * _ALIGNED
        end = start + tensor.numel() * tensor.element_size()
        yield tensor, start, end
