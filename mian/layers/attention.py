"""Attention over vectors that each stand beside the candidate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mian.layers.score import Score, ScoreActivation, masked_softmax


class InteractionAttention(nn.Module):
    """Concatenate the candidate to each of N vectors, score each pair, and add them up by weight.

    Zhang et al. 2021: IBIM, Eqs. 6-9; IUIM, Eqs. 10-11; ICIM, Eqs. 12-13. With ``V_n = Concat(e_i, v_n)``::

        score_n = tanh(V_n . W_n + b_n)        weight = softmax(score)        R = sum_n weight_n V_n

    ``V`` is never built. Its first half is ``e_i`` for every n, so ``V_n . W_n`` is ``e_i . W_n[:d_i] + v_n . W_n[d_i:]`` and, weights
    adding up to 1, ``R`` is ``Concat(e_i, sum_n weight_n v_n)``: the same numbers for N times less work.

    The paper does not say whether ``W`` is shared. Fields are fixed in number and each means something else: a ``W_n`` each. Behaviors
    are as many as there are: one for all. A shared ``W`` with the activation ``none`` moves all scores of a sample by the same
    ``e_i . W[:d_i] + b``, which the softmax cancels: the weights do not depend on the candidate then, and ``W[:d_i]`` and ``b``, which
    could learn nothing, are left out.

    Args:
        candidate_width: ``d_i``.
        width: ``d``, of each of the N vectors.
        fields: N where each vector has its own ``W_n``; None where one is shared.
        activation: see :class:`mian.layers.score.Score`.
    """

    candidate_weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, candidate_width: int, width: int, fields: int | None, activation: ScoreActivation) -> None:
        super().__init__()
        rows = 1 if fields is None else fields
        cancels = fields is None and activation == "none"
        self.weight = nn.Parameter(torch.zeros(rows, width))  # W_n[d_i:]
        self.register_parameter(
            "candidate_weight", None if cancels else nn.Parameter(torch.zeros(rows, candidate_width))
        )  # W_n[:d_i]
        self.register_parameter("bias", None if cancels else nn.Parameter(torch.zeros(rows)))
        self.score = Score(activation)

    def forward(
        self, candidate: torch.Tensor, vectors: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            candidate: ``e_i``, float ``(B, d_i)``.
            vectors: float ``(B, N, d)``.
            mask: bool ``(B, N)``, true where a vector is real; None where all are.

        Returns:
            ``R``, float ``(B, d_i + d)``, a zero vector where no vector is real; and the weights, float ``(B, N)``.
        """
        raw = (vectors * self.weight).sum(dim=-1)  # (B, N, d) * (N or 1, d) -> (B, N)
        if self.candidate_weight is not None and self.bias is not None:
            raw = raw + F.linear(candidate, self.candidate_weight, self.bias)  # (B, N) + (B, N or 1)
        weights = masked_softmax(self.score(raw), mask)
        attended = (weights[:, None, :] @ vectors).squeeze(1)  # (B, 1, N) @ (B, N, d) -> (B, d)
        if mask is not None:
            candidate = candidate * mask.any(dim=-1, keepdim=True)
        return torch.cat([candidate, attended], dim=-1), weights
