"""The embedding layer: from the columns of a batch to one vector a field."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mian.contract import PADDING_ID, Contract
from mian.contract.document import GROUPS, LENGTH_COLUMN, Group
from mian.kernels import JaggedLayout, distinct, field_rows, layout_of, sum_by_place
from mian.layers.lookup import Lookup, Prepared
from mian.layers.placement import Exchange, Placement, current_exchange, device_of_tables
from mian.layers.truncated_normal import truncated_normal

_ROWS_DRAWN = 1 << 18  # at a time, for what drawing takes beside the table


@dataclass(frozen=True)
class Embedded:
    """A batch's vectors by group, each float ``(rows, fields of the group, width)``.

    Rows are samples; those of ``behaviors`` are the real positions of all histories, as ``layout`` says. A group without fields is None.
    """

    candidate: torch.Tensor | None
    behaviors: torch.Tensor | None
    user: torch.Tensor | None
    context: torch.Tensor | None
    layout: JaggedLayout | None


class FieldEmbedding(nn.Module):
    """Embed every field of a contract: Zhang et al. 2021, Eqs. 1-2.

    The vector of a categorical value is a row of the table of its vocabulary. Fields of one vocabulary share the table, so that an item
    has the same vector as candidate and as behavior. Row 0, padding, is a zero vector and is never trained. The tables of all
    vocabularies are stored one after the other in a single table. So a batch needs one lookup, and its gradient one exchange and one
    update, however many fields there are.

    The vector of a numeric value is the value times a learned vector of its field. In Eq. 2 the value stays a scalar, but Eq. 11 adds
    the vectors of fields, and a scalar cannot be added to them; the paper does not say more.

    Args:
        contract: says which fields there are, and how large the vocabularies are.
        width: the width of every field's vector.
        shared: whether fields of one vocabulary share the rows of its table; otherwise each field has rows of its own.

    Attributes:
        shared: whether fields of one vocabulary share rows. For one contract, modules with the same value look up the same rows.
        columns: by group, its columns in the order of their vectors: the categorical ones, then the numeric ones.
        rows: by vocabulary, or by column if rows are not shared, the slice of its rows in ``table``.
        numbers: the numeric columns, in the order of the rows of ``number_vectors``.
    """

    def __init__(self, contract: Contract, width: int, shared: bool = True) -> None:
        super().__init__()
        self.shared = shared
        self.rows: dict[str, slice] = {}
        vocabularies = {field.column: field.vocabulary for field in contract.fields if field.vocabulary is not None}
        names = {column: vocabulary if shared else column for column, vocabulary in vocabularies.items()}
        end = 0
        for column, vocabulary in vocabularies.items():
            if names[column] not in self.rows:
                self.rows[names[column]] = slice(end, end := end + contract.vocabulary(vocabulary).size)
        self.table = EmbeddingTable(end, width, [rows.start + PADDING_ID for rows in self.rows.values()])

        self.columns: dict[Group, tuple[str, ...]] = {}
        self._rows_of: dict[Group, dict[str, slice]] = {}
        self._numbers: dict[Group, list[str]] = {}
        for group in GROUPS:
            fields = contract.group(group)
            rows = {field.column: self.rows[names[field.column]] for field in fields if field.vocabulary is not None}
            self._rows_of[group] = rows
            self._numbers[group] = [field.column for field in fields if field.vocabulary is None]
            self.columns[group] = (*rows, *self._numbers[group])
        self.numbers = [column for group in GROUPS for column in self._numbers[group]]
        self.number_vectors: torch.Tensor | None
        self.register_parameter("number_vectors", nn.Parameter(torch.zeros(len(self.numbers), width)) if self.numbers else None)

    def forward(self, batch: Mapping[str, torch.Tensor], groups: Collection[Group] = GROUPS) -> Embedded:
        """Embed a batch.

        Args:
            batch: columns by name, int32 or int64 ids or float32 numbers: ``(B,)``, those of the behaviors ``(B, T)``, and with them
                ``behavior_length``, int ``(B,)``, how many of the T are real. One that is :class:`mian.layers.Prepared` brings its
                lookups.
            groups: the groups to embed; the others are None, and the batch need not have them.

        Raises:
            KeyError: the batch lacks a column.
            IndexError: an id is not in its vocabulary.
        """
        lookup = batch.lookups[self.shared] if isinstance(batch, Prepared) else self.lookup(batch, groups=groups)
        layout, shapes = lookup.layout, lookup.shapes
        vectors: dict[Group, torch.Tensor] = {}
        if lookup.rows is not None:
            looked_up = self.table(lookup.rows, lookup.found)
            vectors = dict(zip(shapes, looked_up.split([math.prod(shape) for shape in shapes.values()]), strict=True))
        number_vectors = {} if self.number_vectors is None else dict(zip(self.numbers, self.number_vectors, strict=True))
        embedded: dict[Group, torch.Tensor | None] = {}
        for group in GROUPS:
            if group not in groups:
                embedded[group] = None
                continue
            parts = [vectors[group].view(*shapes[group], self.table.width)] if group in shapes else []
            for name in self._numbers[group]:
                parts.append((lookup.numbers[name][:, None] * number_vectors[name])[:, None])  # (rows, 1, width)
            embedded[group] = torch.cat(parts, dim=1) if len(parts) > 1 else next(iter(parts), None)
        return Embedded(**embedded, layout=layout)

    def lookup(self, batch: Mapping[str, torch.Tensor], multiple: int = 1, groups: Collection[Group] = GROUPS) -> Lookup:
        """What :meth:`forward` looks up; arguments and errors are the same.

        Args:
            batch: See :meth:`forward`.
            multiple: The number of positions is padded to a multiple of this, see :meth:`mian.kernels.JaggedLayout.pad_to_multiple`.
                Positions that are not real hold the padding id and 0.
            groups: See :meth:`forward`.
        """
        layout = None
        if (behaviors := self.columns["behaviors"]) and "behaviors" in groups:
            layout = layout_of(batch[LENGTH_COLUMN], batch[behaviors[0]].shape[1])
        layouts: dict[Group, JaggedLayout | None] = {
            group: layout if group == "behaviors" else None for group in GROUPS if group in groups
        }
        rows = {
            group: self._rows(group, batch, packing) for group, packing in layouts.items() if self._rows_of[group]
        }  # (rows, fields)
        numbers = {
            name: batch[name] if packing is None else packing.pack(batch[name])
            for group, packing in layouts.items()
            for name in self._numbers[group]
        }
        if layout is not None and multiple > 1:
            layout = self._pad_positions(layout, multiple, rows, numbers)
        joined = torch.cat([group_rows.flatten() for group_rows in rows.values()]) if rows else None
        return Lookup(layout, {group: group_rows.shape for group, group_rows in rows.items()}, joined, numbers)

    def _pad_positions(
        self, layout: JaggedLayout, multiple: int, rows: dict[Group, torch.Tensor], numbers: dict[str, torch.Tensor]
    ) -> JaggedLayout:
        """Pad what is looked up of behaviors, in its place, to a multiple of positions, which the layout returned has."""
        padded = layout.pad_to_multiple(multiple)
        added = len(padded.places) - padded.real
        if "behaviors" in rows:
            padding = [column_rows.start + PADDING_ID for column_rows in self._rows_of["behaviors"].values()]
            rows["behaviors"] = torch.cat([rows["behaviors"], rows["behaviors"].new_tensor(padding).expand(added, -1)])
        for name in self._numbers["behaviors"]:
            numbers[name] = torch.cat([numbers[name], numbers[name].new_zeros(added)])
        return padded

    def _rows(self, group: Group, batch: Mapping[str, torch.Tensor], layout: JaggedLayout | None) -> torch.Tensor:
        """The rows of a group's ids. An id past its vocabulary would be read as one of the next vocabulary's."""
        columns_rows = self._rows_of[group]
        rows, wrong = field_rows([batch[name] for name in columns_rows], list(columns_rows.values()), layout)
        if wrong >= 0:
            name, column_rows = list(columns_rows.items())[wrong]
            ids = batch[name] if layout is None else layout.pack(batch[name])
            size = column_rows.stop - column_rows.start
            outside = ids[(ids < 0) | (ids >= size)]
            raise IndexError(f"column {name!r} holds id {int(outside[0])}, its vocabulary has {size}")
        return rows


class EmbeddingTable(nn.Module):
    """A table of vectors; its gradient is a sparse tensor that holds each row of the batch once.

    A table that is made within :func:`mian.layers.sharded_tables` is sharded over the ranks: ``weight`` holds only the rows of this rank.
    A lookup then gets the vectors from the ranks that hold them. The backward pass sends each rank the gradients of its rows, already
    averaged over the ranks. Every rank must do the same number of lookups; a rank with nothing to look up passes an empty tensor.

    Args:
        rows: how many vectors there are over all ranks.
        width: the width of each vector.
        padding: rows that are zero vectors and are never trained.

    Attributes:
        rows: How many vectors there are over all ranks.
        width: The width of each vector.
        placement: which rows of the table this rank holds; R of them.
        weight: the rows of this rank, ``(R, width)``.
        is_padding: which rows of this rank are padding, bool ``(R,)``.
    """

    def __init__(self, rows: int, width: int, padding: Sequence[int]) -> None:
        super().__init__()
        self.rows, self.width = rows, width
        self._exchange = current_exchange()
        self.placement = Placement() if self._exchange is None else Placement(self._exchange.rank, self._exchange.size)
        self.weight = nn.Parameter(torch.zeros(self.placement.count(rows), width, device=device_of_tables()))
        self.is_padding: torch.Tensor
        is_padding = torch.zeros(self.placement.count(rows), dtype=torch.bool)
        is_padding[self.placement.own(torch.tensor(padding, dtype=torch.int64))] = True
        self.register_buffer("is_padding", is_padding, persistent=False)

    @property
    def is_sharded(self) -> bool:
        """Whether other ranks hold other rows."""
        return self._exchange is not None

    def forward(self, rows: torch.Tensor, found: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Look up vectors, float ``(N, width)``, by their rows, int ``(N,)``; ``found``: what ``distinct(rows)`` gives, if it is known."""
        looked_up: torch.Tensor
        if self._exchange is not None:
            found = found or distinct(rows)
            looked_up = _ShardedLookup.apply(self.weight, *found, self.is_padding, self._exchange)  # type: ignore[no-untyped-call]
        elif not torch.is_grad_enabled():
            looked_up = F.embedding(rows, self.weight)
        else:
            found = found or distinct(rows)
            looked_up = _Lookup.apply(self.weight, *found, self.is_padding)  # type: ignore[no-untyped-call]
        return looked_up

    @torch.no_grad()
    def draw(self, std: float) -> None:
        """Draw all vectors but the padding from a normal of deviation ``std`` cut off at two deviations.

        One number comes from torch's generator. It and a vector's row decide the vector, wherever the row lies. Nothing is drawn within
        :func:`mian.layers.tables_without_memory`.
        """
        if self.weight.is_meta:
            return
        seed = int(torch.randint(2**62, ()))
        columns = torch.arange(self.width)
        for start in range(0, len(self.weight), _ROWS_DRAWN):
            stop = min(start + _ROWS_DRAWN, len(self.weight))
            places = self.placement.rows(start, stop)[:, None] * self.width + columns
            self.weight[start:stop] = truncated_normal(places, seed) * std
        self.weight.masked_fill_(self.is_padding[:, None], 0.0)


class _Lookup(torch.autograd.Function):
    """Each distinct row is gathered once, and its gradients are added up once."""

    @staticmethod
    def forward(
        ctx: Any, table: torch.Tensor, distinct_rows: torch.Tensor, places: torch.Tensor, is_padding: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(distinct_rows, places, is_padding)
        ctx.shape = table.shape
        return table.index_select(0, distinct_rows).index_select(0, places)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        distinct_rows, places, is_padding = ctx.saved_tensors
        values = _without_padding(sum_by_place(grad, places, len(distinct_rows)), distinct_rows, is_padding)
        return _sparse(distinct_rows, values, ctx.shape), None, None, None


class _ShardedLookup(torch.autograd.Function):
    """Each distinct row of this rank's batch travels once: its number there, its vector here, and its gradient there again."""

    @staticmethod
    def forward(
        ctx: Any,
        table: torch.Tensor,
        distinct_rows: torch.Tensor,
        places: torch.Tensor,
        is_padding: torch.Tensor,
        exchange: Exchange,
    ) -> torch.Tensor:
        by_rank = torch.argsort(distinct_rows % exchange.size, stable=True)
        wanted = distinct_rows.index_select(0, by_rank)
        counts = torch.bincount(wanted % exchange.size, minlength=exchange.size)
        # asked: rows here that the ranks want, rank by rank
        asked, asked_counts = exchange.all_to_all(wanted // exchange.size, counts, "rows")
        vectors, _ = exchange.all_to_all(table.index_select(0, asked), asked_counts, "vectors")
        place_of = torch.empty_like(places[: len(wanted)])  # there are no more distinct rows than rows
        place_of[by_rank] = torch.arange(len(wanted), dtype=places.dtype, device=places.device)
        places = place_of.index_select(0, places)
        ctx.save_for_backward(wanted, places, is_padding, counts, asked)
        ctx.shape, ctx.exchange = table.shape, exchange
        return vectors.index_select(0, places)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        wanted, places, is_padding, counts, asked = ctx.saved_tensors
        exchange = ctx.exchange
        rank_gradients = exchange.all_to_all_gradients(sum_by_place(grad, places, len(wanted)), counts)
        distinct_rows, places = distinct(asked)
        sums = sum_by_place(rank_gradients.div_(exchange.size), places, len(distinct_rows))
        values = _without_padding(sums, distinct_rows, is_padding)
        return _sparse(distinct_rows, values, ctx.shape), None, None, None, None


def _without_padding(sums: torch.Tensor, rows: torch.Tensor, is_padding: torch.Tensor) -> torch.Tensor:
    """The gradients of rows here, ``(rows, width)``, in place 0 for padding."""
    return sums.masked_fill_(is_padding.index_select(0, rows)[:, None], 0.0)


def _sparse(rows: torch.Tensor, values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        rows.long()[None], values, shape, check_invariants=False
    )  # not coalesced: rows need not ascend
