"""The embedding layer: from the columns of a batch to one vector a field."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pipeline.contract import PADDING_ID, Contract


class FieldEmbedding(nn.Module):
    """Embed every field of a contract: Zhang et al. 2021, Eqs. 1-2.

    A categorical field is a row of its vocabulary's table. Fields of one vocabulary share its table, so that an item means the same as
    candidate and as behavior. Row 0, padding, is a zero vector and is never trained.

    A numeric field is its value times a learned vector of its own. In Eq. 2 it stays a scalar, which Eq. 11 then cannot add to the
    vectors of the other fields; the paper does not say more.

    Args:
        contract: says which fields there are, and how large the vocabularies.
        width: of every field's vector.
        sparse: whether the tables' gradients are sparse tensors, which hold the rows that a batch has seen and no others.
    """

    def __init__(self, contract: Contract, width: int, sparse: bool) -> None:
        super().__init__()
        self.columns_of: dict[str, list[str]] = {}  # vocabulary -> columns of its ids
        for field in contract.fields:
            if field.vocabulary is not None:
                self.columns_of.setdefault(field.vocabulary, []).append(field.column)
        self.numeric = [field.column for field in contract.fields if not field.is_categorical]
        # Tables go by number, in the order of `columns_of`: a vocabulary may have a name that a module may not have.
        self.tables = nn.ModuleList(
            nn.Embedding(contract.vocabulary(name).size, width, padding_idx=PADDING_ID, sparse=sparse) for name in self.columns_of
        )
        self.number_vectors: torch.Tensor | None
        self.register_parameter("number_vectors", nn.Parameter(torch.zeros(len(self.numeric), width)) if self.numeric else None)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Embed a batch.

        Args:
            batch: columns by name, int32 or int64 ids or float32 numbers: ``(B,)``, those of the behaviors ``(B, T)``.

        Returns:
            By column, float ``(B, width)``, of the behaviors ``(B, T, width)``.

        Raises:
            KeyError: the batch lacks a column.
            IndexError: an id is not in its vocabulary.
        """
        embedded: dict[str, torch.Tensor] = {}
        for table, columns in zip(self.tables, self.columns_of.values(), strict=True):
            for column in columns:
                embedded[column] = table(batch[column])
        if self.number_vectors is not None:
            for column, vector in zip(self.numeric, self.number_vectors, strict=True):
                embedded[column] = batch[column].unsqueeze(-1) * vector
        return embedded
