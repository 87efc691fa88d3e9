"""The Global Interaction Module: weigh the original and the interactive representations against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mian.layers.score import Score, ScoreActivation


class _Parts(nn.Module):
    """Where each of L parts lies in all of them side by side.

    Args:
        widths: of the parts.
        activation: see :class:`mian.layers.score.Score`.
    """

    def __init__(self, widths: Sequence[int], activation: ScoreActivation) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(len(widths)))
        self.score = Score(activation)
        self.part_mask: torch.Tensor  # (L, sum(widths)): 1 where a column is of a part
        part_of_column = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        self.register_buffer("part_mask", (part_of_column == torch.arange(len(widths))[:, None]).float(), persistent=False)


class ProjectedGlobalInteraction(_Parts):
    """Project every part to one width, score it, and add the parts up by weight: Zhang et al. 2021, Eqs. 14-15.

    Eq. 15 adds parts of different widths, and the paper does not say how. A projection each, without a bias (so that the part of an
    empty history stays 0), is the smallest change that keeps the equation. With ``P`` all projections side by side::

        score_l = tanh((P_l r_l) . W_l + b_l)        weight = softmax(score)        R_g = sum_l weight_l P_l r_l

    No ``P_l r_l`` is built: ``(P_l r_l) . W_l`` is ``r_l . (P_l^T W_l)``, and ``R_g`` is ``P`` times all ``weight_l r_l`` side by side, the
    same numbers in two products in the place of 2 L.

    Args:
        widths: of the parts ``r_1`` to ``r_L``.
        width: ``d_g``, that all are projected to.
        activation: see :class:`mian.layers.score.Score`.
    """

    def __init__(self, widths: Sequence[int], width: int, activation: ScoreActivation) -> None:
        super().__init__(widths, activation)
        self.projection = nn.Parameter(torch.zeros(width, sum(widths)))  # P
        self.weight = nn.Parameter(torch.zeros(len(widths), width))  # W_l, one a part
        self.output_width = width

    def forward(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend over the parts.

        Args:
            parts: L tensors, float ``(B, widths[l])``.

        Returns:
            ``R_g``, float ``(B, d_g)``, and the weights, float ``(B, L)``.
        """
        r = torch.cat(list(parts), dim=1)
        scored_by = (self.weight @ self.projection) * self.part_mask  # (L, sum(widths)): P_l^T W_l at the columns of r_l
        weights = torch.softmax(self.score(F.linear(r, scored_by, self.bias)), dim=-1)
        return F.linear(r * (weights @ self.part_mask), self.projection), weights


class ConcatenatedGlobalInteraction(_Parts):
    """Score every part, scale it by its weight, and concatenate instead of adding up: the other reading of Eqs. 14-15.

    Weights that add up to 1 make every part L times smaller, and what it learns slower with it. ``scaled`` multiplies them by L, so that
    even weights leave the parts as they are.

    Args:
        widths: of the parts ``r_1`` to ``r_L``.
        activation: see :class:`mian.layers.score.Score`.
        scaled: whether the weights are multiplied by L.
    """

    def __init__(self, widths: Sequence[int], activation: ScoreActivation, scaled: bool = False) -> None:
        super().__init__(widths, activation)
        self.weight = nn.Parameter(torch.zeros(1, sum(widths)))  # all W_l side by side
        self.output_width = sum(widths)
        self._factor = len(widths) if scaled else 1

    def forward(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend over the parts.

        Args:
            parts: L tensors, float ``(B, widths[l])``.

        Returns:
            ``R_g``, float ``(B, sum(widths))``, and the weights, float ``(B, L)``, which add up to 1.
        """
        r = torch.cat(list(parts), dim=1)
        weights = torch.softmax(self.score(F.linear(r, self.weight * self.part_mask, self.bias)), dim=-1)
        return r * (self._factor * weights @ self.part_mask), weights
