"""Cross networks: every layer multiplies by the input once more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class VectorCross(nn.Module):
    """``x_{l+1} = x_0 x_l^T w_l + b_l + x_l``, a weight vector a layer: Wang et al. 2017, Eq. 3.

    Args:
        width: of ``x_0``.
        layers: how many.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, width))
        self.bias = nn.ParameterList(torch.zeros(width) for _ in range(layers))

    def forward(self, x_0: torch.Tensor) -> torch.Tensor:
        """Cross, float ``(B, width)`` to float ``(B, width)``."""
        x = x_0
        for w, b in zip(self.weight, self.bias, strict=True):
            x = x_0 * (x @ w)[:, None] + b + x  # (B, width) * (B, 1)
        return x


class MatrixCross(nn.Module):
    """``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``, a weight matrix a layer: Wang et al. 2021, Eq. 1.

    Args:
        width: of ``x_0``.
        layers: how many.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, width, width))
        self.bias = nn.ParameterList(torch.zeros(width) for _ in range(layers))

    def forward(self, x_0: torch.Tensor) -> torch.Tensor:
        """Cross, float ``(B, width)`` to float ``(B, width)``."""
        x = x_0
        for W, b in zip(self.weight, self.bias, strict=True):
            x = torch.addcmul(x, x_0, F.linear(x, W, b))
        return x
