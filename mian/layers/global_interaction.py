"""The Global Interaction Module: weigh the original and the interactive representations against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mian.layers.score import Score, ScoreActivation


class ProjectedGlobalInteraction(nn.Module):
    """Project every part to one width, score it, and add the parts up by weight: Zhang et al. 2021, Eqs. 14-15.

    Eq. 15 adds parts of different widths, and the paper does not say how. A projection each, without a bias (so that the part of an
    empty history stays 0), is the smallest change that keeps the equation.

    Args:
        widths: of the parts ``r_1`` to ``r_L``.
        width: ``d_g``, that all are projected to.
        activation: see :class:`mian.layers.score.Score`.
    """

    def __init__(self, widths: Sequence[int], width: int, activation: ScoreActivation) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(part, width, bias=False) for part in widths)
        self.weight = nn.Parameter(torch.zeros(len(widths), width))  # W_l, one a part
        self.bias = nn.Parameter(torch.zeros(len(widths)))
        self.score = Score(activation)
        self.output_width = width

    def forward(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend over the parts.

        Args:
            parts: L tensors, float ``(B, widths[l])``.

        Returns:
            ``R_g``, float ``(B, d_g)``, and the weights, float ``(B, L)``.
        """
        projected = [projection(part) for projection, part in zip(self.projections, parts, strict=True)]
        r = torch.stack(projected, dim=1)  # L of (B, d_g) -> (B, L, d_g)
        weights = torch.softmax(self.score((r * self.weight).sum(dim=-1) + self.bias), dim=-1)
        return (weights[:, None, :] @ r).squeeze(1), weights  # (B, 1, L) @ (B, L, d_g) -> (B, d_g)


class ConcatenatedGlobalInteraction(nn.Module):
    """Score every part, scale it by its weight, and concatenate instead of adding up: the other reading of Eqs. 14-15.

    Args:
        widths: of the parts ``r_1`` to ``r_L``.
        activation: see :class:`mian.layers.score.Score`.
    """

    def __init__(self, widths: Sequence[int], activation: ScoreActivation) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(1, part)) for part in widths)  # W_l, one a part
        self.bias = nn.Parameter(torch.zeros(len(widths)))
        self.score = Score(activation)
        self.output_width = sum(widths)

    def forward(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend over the parts.

        Args:
            parts: L tensors, float ``(B, widths[l])``.

        Returns:
            ``R_g``, float ``(B, sum(widths))``, and the weights, float ``(B, L)``.
        """
        raw = torch.cat([part @ weight.T for weight, part in zip(self.weights, parts, strict=True)], dim=1)  # (B, L)
        weights = torch.softmax(self.score(raw + self.bias), dim=-1)
        scaled = [w[:, None] * part for w, part in zip(torch.unbind(weights, dim=1), parts, strict=True)]  # (B, 1) * (B, d_l)
        return torch.cat(scaled, dim=1), weights
