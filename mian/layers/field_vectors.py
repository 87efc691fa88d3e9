"""The same number of vectors for every sample, for models that know fields and no sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from mian.contract import Contract
from mian.kernels import pool
from mian.layers.beside_user import USER_GROUPS, BesideUser, embed_candidates
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
        """Embed a batch, see :meth:`mian.layers.FieldEmbedding.forward`; of candidates beside a user, what :meth:`encode_user` left out.

        Returns:
            Float ``(B, F, width)``.
        """
        if isinstance(batch, BesideUser):
            return concat_fields(embed_candidates(self.embedding, batch, batch.user[self]), batch.count)
        return concat_fields(self.embedding(batch))

    def encode_user(self, batch: Mapping[str, torch.Tensor]) -> Embedded:
        """What candidates of one user share: the vectors of history, user and context.

        Args:
            batch: one row; columns of candidates are not read.

        Returns:
            Of ``behaviors`` the mean of the real ones, ``(1, fields, width)``; without a layout.
        """
        return mean_history(self.embedding(batch, USER_GROUPS))


def concat_fields(embedded: Embedded, count: int = -1) -> torch.Tensor:
    """The vectors of :class:`FieldVectors`, float ``(B, F, width)``.

    Args:
        embedded: samples, or candidates beside a user whose groups have one row.
        count: B, where groups of one row are to be repeated; -1 leaves all as they are.
    """
    means = mean_history(embedded)
    groups = (means.candidate, means.behaviors, means.user, means.context)
    return torch.cat([vectors.expand(count, -1, -1) for vectors in groups if vectors is not None], dim=1)


def mean_history(embedded: Embedded) -> Embedded:
    """The same with the mean of each sample's real behaviors in the place of all, float ``(B, fields, width)``, and without a layout."""
    if embedded.behaviors is None or embedded.layout is None:
        return embedded
    flat = embedded.behaviors.flatten(1)  # (P, fields, width) -> (P, fields * width)
    means, _ = pool(flat.new_zeros(len(flat)), flat, embedded.layout)
    return replace(embedded, behaviors=means.view(-1, *embedded.behaviors.shape[1:]), layout=None)


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
