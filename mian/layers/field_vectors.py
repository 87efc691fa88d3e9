"""The same number of vectors for every sample, for models that know fields and no sequences."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mian.contract import Contract
from mian.kernels import pool
from mian.layers.embedding import Embedded, FieldEmbedding


class FieldVectors(nn.Module):
    """One vector a field: candidate, history, user, context, in this order.

    A field of the behaviors is the mean over the real behaviors, a zero vector where there are none: what models without a notion of a
    sequence make of it (Covington et al. 2016, section 3.2). Which values stood in one behavior, and in what order, is lost.

    Args:
        contract: says which fields there are.
        width: of every vector.
        shared: see :class:`mian.layers.FieldEmbedding`.

    Attributes:
        count: F, how many fields there are.
        flat_width: of all vectors of a sample side by side.
    """

    def __init__(self, contract: Contract, width: int, shared: bool = True) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(contract, width, shared)
        self.count = len(contract.fields)
        self.flat_width = self.count * width

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embed a batch, see :meth:`mian.layers.FieldEmbedding.forward`.

        Returns:
            Float ``(B, F, width)``.
        """
        return concat_fields(self.embedding(batch))


def concat_fields(embedded: Embedded) -> torch.Tensor:
    """The vectors of :class:`FieldVectors`, of embedded samples, float ``(B, F, width)``."""
    history_means = None
    if embedded.behaviors is not None and embedded.layout is not None:
        flat = embedded.behaviors.flatten(1)  # (P, fields, width) -> (P, fields * width)
        means, _ = pool(flat.new_zeros(len(flat)), flat, embedded.layout)
        history_means = means.view(-1, *embedded.behaviors.shape[1:])  # (B, fields, width)
    groups = (embedded.candidate, history_means, embedded.user, embedded.context)
    return torch.cat([vectors for vectors in groups if vectors is not None], dim=1)


class LinearPart(nn.Module):
    """``w_0 + sum_i w_i x_i``: a weight for each value of each field, which no two fields share, and one bias.

    Of a history, each field counts with the mean of its weights. A number counts with its value times its field's weight.

    Args:
        contract: says which fields there are.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.weights = FieldVectors(contract, 1, shared=False)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The sums, float ``(B,)``; the batch as for :class:`FieldVectors`."""
        sums: torch.Tensor = self.weights(batch).sum(dim=(1, 2)) + self.bias
        return sums
