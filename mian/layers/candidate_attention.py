"""Attention over vectors that each stand beside the candidate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mian.kernels import JaggedLayout, pool
from mian.layers.score import Score, ScoreActivation


class FieldAttention(nn.Module):
    """Concatenate the candidate to each of N fields' vectors, score each pair, and add them up by weight.

    Zhang et al. 2021: IUIM, Eqs. 10-11; ICIM, Eqs. 12-13. With ``V_n = Concat(e_i, v_n)``::

        score_n = tanh(V_n . W_n + b_n)        weight = softmax(score)        R = sum_n weight_n V_n

    ``V`` is never built. Its first half is ``e_i`` for every n, so ``V_n . W_n`` is ``e_i . W_n[:d_i] + v_n . W_n[d_i:]`` and, weights
    adding up to 1, ``R`` is ``Concat(e_i, sum_n weight_n v_n)``: the same numbers for N times less work.

    The paper does not say whether ``W`` is shared. Fields are fixed in number and each means something else: a ``W_n`` each.

    Args:
        candidate_width: ``d_i``.
        width: ``d``, of each of the N vectors.
        fields: N.
        activation: see :class:`mian.layers.score.Score`.
    """

    def __init__(self, candidate_width: int, width: int, fields: int, activation: ScoreActivation) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(fields, width))  # W_n[d_i:]
        self.candidate_weight = nn.Parameter(torch.zeros(fields, candidate_width))  # W_n[:d_i]
        self.bias = nn.Parameter(torch.zeros(fields))
        self.score = Score(activation)

    def forward(self, candidate: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            candidate: ``e_i``, float ``(B, d_i)``.
            vectors: float ``(B, N, d)``.

        Returns:
            ``R``, float ``(B, d_i + d)``, and the weights, float ``(B, N)``.
        """
        raw = (vectors * self.weight).sum(dim=-1)  # (B, N, d) * (N, d) -> (B, N)
        weights = torch.softmax(self.score(raw + F.linear(candidate, self.candidate_weight, self.bias)), dim=-1)
        attended = (weights[:, :, None] * vectors).sum(dim=1)  # (B, N, 1) * (B, N, d) -> (B, d); faster than B small products
        return torch.cat([candidate, attended], dim=-1), weights


class BehaviorAttention(nn.Module):
    """The same over a history: Zhang et al. 2021, IBIM, Eqs. 6-9. Behaviors are as many as there are, so one ``W`` is for all.

    With the activation ``none`` all scores of a sample are moved by the same ``e_i . W[:d_i] + b``, which the softmax cancels: the weights
    do not depend on the candidate then, and ``W[:d_i]`` and ``b``, which could learn nothing, are left out.

    Args:
        candidate_width: ``d_i``.
        width: ``d``, of a behavior's vector.
        activation: see :class:`mian.layers.score.Score`.
    """

    candidate_weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, candidate_width: int, width: int, activation: ScoreActivation) -> None:
        super().__init__()
        cancels = activation == "none"
        self.weight = nn.Parameter(torch.zeros(1, width))  # W[d_i:]
        self.register_parameter("candidate_weight", None if cancels else nn.Parameter(torch.zeros(1, candidate_width)))  # W[:d_i]
        self.register_parameter("bias", None if cancels else nn.Parameter(torch.zeros(1)))
        self.score = Score(activation)

    def forward(self, candidate: torch.Tensor, vectors: torch.Tensor, layout: JaggedLayout) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            candidate: ``e_i``, float ``(B, d_i)``.
            vectors: float ``(P, d)``, of the real positions of all histories.
            layout: which sample each is of.

        Returns:
            ``R``, float ``(B, d_i + d)``, a zero vector where a history is empty; and the weights, float ``(P,)``, without a gradient.
        """
        raw = F.linear(vectors, self.weight).squeeze(1)  # (P, d) -> (P,)
        if self.candidate_weight is not None:
            candidate_scores = F.linear(candidate, self.candidate_weight, self.bias).squeeze(1)  # (B,)
            raw = raw + candidate_scores.index_select(0, layout.samples)
        attended, weights = pool(self.score(raw), vectors, layout)
        beside = candidate * (layout.lengths > 0)[:, None]
        return torch.cat([beside, attended], dim=-1), weights

    def one_history(self, candidates: torch.Tensor, vectors: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """``R`` of :meth:`forward` for N candidates that have one history.

        Args:
            candidates: float ``(N, d_i)``.
            vectors: float ``(P, d)``, of the real positions of the history.
            layout: of this history alone.

        Returns:
            Float ``(N, d_i + d)``.
        """
        if not vectors.shape[0]:
            return candidates.new_zeros(candidates.shape[0], candidates.shape[1] + vectors.shape[1])
        raw = F.linear(vectors, self.weight).squeeze(1).expand(candidates.shape[0], -1)  # (P,) -> (N, P)
        if self.candidate_weight is not None:
            raw = raw + F.linear(candidates, self.candidate_weight, self.bias)
        scores = self.score(raw)
        if layout.counted is None:
            return torch.cat([candidates, torch.softmax(scores, dim=-1) @ vectors], dim=-1)
        weights = torch.softmax(scores.masked_fill(~layout.counted, torch.finfo(scores.dtype).min), dim=-1)
        return torch.cat([candidates, weights @ vectors], dim=-1) * (layout.lengths > 0)  # those of an empty history are even
