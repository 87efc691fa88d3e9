"""What a batch looks up in the embedding table, as far as integers alone decide it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mian.kernels import Packing, distinct, moved
from pipeline.contract.document import Group


@dataclass(frozen=True)
class Lookup:
    """Where the vectors of a batch lie.

    How many behaviors and how many distinct rows a batch has is known when they are counted. Made on the CPU and moved with its batch, a
    GPU need not be waited for.

    Attributes:
        packing: of the histories; None where there are none.
        shapes: by group, how many rows of the embedding it has, and how many categorical fields; groups without any are left out.
        rows: of the table, int ``(N,)``, of all groups one after the other; None where there is no group.
        found: what :func:`mian.kernels.distinct` gives of them, where it was asked already.
    """

    packing: Packing | None
    shapes: dict[Group, torch.Size]
    rows: torch.Tensor | None
    found: tuple[torch.Tensor, torch.Tensor] | None = None

    def to(self, device: torch.device, pin: bool = False) -> Lookup:
        """The same on another device, its distinct rows found here; ``pin``: by way of pinned memory, without waiting."""
        if self.rows is None:
            return Lookup(self.packing and self.packing.to(device, pin), self.shapes, None)
        of_batch, places = self.found or distinct(self.rows)
        rows, of_batch, places = (moved(tensor, device, pin) for tensor in (self.rows, of_batch, places))
        return Lookup(self.packing and self.packing.to(device, pin), self.shapes, rows, (of_batch, places))

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds."""
        of_packing = [] if self.packing is None else self.packing.tensors()
        return [*of_packing, *([] if self.rows is None else [self.rows]), *(self.found or ())]


class Prepared(dict[str, torch.Tensor]):
    """A batch, columns by name, with its lookup.

    Args:
        columns: of the batch.
        lookup: made of the same columns, on the same device.
    """

    def __init__(self, columns: Mapping[str, torch.Tensor], lookup: Lookup) -> None:
        super().__init__(columns)
        self.lookup = lookup
