"""What a batch looks up in the embedding table, as far as integers alone decide it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mian.contract.document import Group
from mian.kernels import JaggedLayout, distinct

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Lookup:
    """Where the vectors of a batch lie, and its numbers.

    How many behaviors and how many distinct rows a batch has is known when they are counted. Made on the CPU and moved with its batch, a
    GPU need not be waited for.

    Attributes:
        layout: of the histories; None where there are none.
        shapes: by group, how many rows of the embedding it has, and how many categorical fields; groups without any are left out.
        rows: of the table, int ``(N,)``, of all groups one after the other; None where there is no group.
        numbers: the numeric columns, float, one number a row of the embedding.
        found: what :func:`mian.kernels.distinct` gives of the rows, where it was asked already.
    """

    layout: JaggedLayout | None
    shapes: dict[Group, torch.Size]
    rows: torch.Tensor | None
    numbers: dict[str, torch.Tensor]
    found: tuple[torch.Tensor, torch.Tensor] | None = None

    def resolved(self, multiple: int = 1) -> Lookup:
        """The same with its distinct rows found; so often row 0, which is padding, besides that their number is a multiple."""
        if self.rows is None:
            return self
        distinct_rows, places = self.found or distinct(self.rows)
        more = -len(distinct_rows) % multiple
        distinct_rows = torch.cat([distinct_rows, distinct_rows.new_zeros(more)]) if more else distinct_rows
        return Lookup(self.layout, self.shapes, self.rows, self.numbers, (distinct_rows, places))

    def map(self, change: Change) -> Lookup:
        """The same with other tensors in the place of its own, which are given to ``change`` in an order that is always the same."""
        return Lookup(
            self.layout and self.layout.map(change),
            self.shapes,
            None if self.rows is None else change(self.rows),
            {name: change(column) for name, column in self.numbers.items()},
            self.found and (change(self.found[0]), change(self.found[1])),
        )


class Prepared(dict[str, torch.Tensor]):
    """A batch, columns by name, with what the embeddings of a model look up in it.

    Args:
        columns: of the batch.
        lookups: by :attr:`mian.layers.FieldEmbedding.shared`, each made of the same columns, on the same device.
    """

    def __init__(self, columns: Mapping[str, torch.Tensor], lookups: Mapping[bool, Lookup]) -> None:
        super().__init__(columns)
        self.lookups = dict(lookups)

    def map(self, change: Change) -> Prepared:
        """The same with other tensors in the place of its own, which are given to ``change`` in an order that is always the same."""
        columns = {name: change(column) for name, column in self.items()}
        return Prepared(columns, {shared: lookup.map(change) for shared, lookup in self.lookups.items()})
