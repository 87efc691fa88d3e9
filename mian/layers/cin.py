"""The Compressed Interaction Network of xDeepFM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn


class CompressedInteraction(nn.Module):
    """Interactions of fields' vectors, one degree more a layer, each a number at the end: Lian et al. 2018, section 3.1.

    Row h of layer k is a weighted sum of all products of a row of layer k - 1 and a field's vector (Eq. 6)::

        X^k_h = sum_ij W^{k,h}_ij (X^{k-1}_i * X^0_j)

    and what comes out is the sum over each row's entries (Eq. 7), of all layers side by side (Eq. 8).

    Args:
        fields: ``m``, how many vectors there are in ``X^0``.
        sizes: ``H_1`` to ``H_T``, the layers' rows.
        activation: of every layer. The paper finds ``identity`` best, with which Eq. 6 is all there is.
        split_half: not in the paper; in its authors' code: of each layer but the last, the first half of the rows goes on to the next
            layer, and the second half comes out.

    Attributes:
        output_width: of what comes out.
    """

    def __init__(self, fields: int, sizes: Sequence[int], activation: Literal["identity", "relu"], split_half: bool) -> None:
        super().__init__()
        self._activation = activation
        self._going_on = [size // 2 if split_half else size for size in sizes[:-1]]
        self._coming_out = [*(size - size // 2 if split_half else size for size in sizes[:-1]), sizes[-1]]
        self.output_width = sum(self._coming_out)
        rows_before = [fields, *self._going_on]
        # (H_k, H_{k-1} * m): W^{k,h}, its rows one after the other
        self.weights = nn.ParameterList(
            torch.zeros(size, before * fields) for before, size in zip(rows_before, sizes, strict=True)
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Interact.

        Args:
            vectors: ``X^0``, float ``(B, m, d)``.

        Returns:
            Float ``(B, output_width)``.
        """
        x_0 = vectors.transpose(1, 2)  # (B, d, m): rows last, so that a layer is one product of matrices
        x, sums = x_0, []
        for number, weight in enumerate(self.weights):
            # (B, d, H_{k-1}, 1) * (B, d, 1, m) -> (B, d, H_{k-1} * m)
            products = (x[:, :, :, None] * x_0[:, :, None, :]).flatten(2)
            x = F.linear(products, weight)  # (B, d, H_k)
            if self._activation == "relu":
                x = F.relu(x)
            sums.append(x[:, :, -self._coming_out[number] :].sum(dim=1))
            if number < len(self._going_on):
                x = x[:, :, : self._going_on[number]]
        return torch.cat(sums, dim=1)
