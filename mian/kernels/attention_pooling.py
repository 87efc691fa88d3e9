"""A softmax over each sample's positions, alone, or with the sum of their vectors by weight."""

from __future__ import annotations

from typing import Any

import torch

from mian.kernels.jagged import JaggedLayout
from mian.kernels.load import fits_histories


def softmax(scores: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
    """Weights of each sample's positions that add up to 1.

    Args:
        scores: float ``(P,)``.
        layout: which sample each of the P positions is of.

    Returns:
        Float ``(P,)``.
    """
    if fits_histories(scores):
        weights: torch.Tensor = _Softmax.apply(scores.float().contiguous(), layout.offsets)  # type: ignore[no-untyped-call]
        return weights
    padded = layout.pad(scores).masked_fill(~layout.mask, torch.finfo(scores.dtype).min)
    return layout.pack(torch.softmax(padded, dim=1).masked_fill(~layout.mask, 0.0))  # those of an empty history are even


def pool(scores: torch.Tensor, vectors: torch.Tensor, layout: JaggedLayout) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up each sample's vectors, weighted by the softmax of their scores: Zhang et al. 2021, Eqs. 7 and 9.

    Args:
        scores: float ``(P,)``; all alike, they give the mean.
        vectors: float ``(P, d)``.
        layout: which sample each of the P positions is of.

    Returns:
        The sums ``(B, d)``, of the vectors' type, a zero vector where a history is empty; and the weights, float ``(P,)``, through which
        no gradient flows.
    """
    if fits_histories(scores, vectors):
        floats = scores.float().contiguous(), vectors.float().contiguous()
        sums, weights = _Pool.apply(*floats, layout.offsets)  # type: ignore[no-untyped-call]
        return sums.to(vectors.dtype), weights
    weights = softmax(scores, layout)
    return layout.sum(weights[:, None] * vectors).to(vectors.dtype), weights.detach()


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        weights = torch.ops.mian.softmax(scores, offsets)
        ctx.save_for_backward(weights, offsets)
        return weights  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_weights: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.ops.mian.softmax_backward(grad_weights.contiguous(), *ctx.saved_tensors), None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: torch.Tensor, vectors: torch.Tensor, offsets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights, sums = torch.ops.mian.pool(scores, vectors, offsets)
        ctx.save_for_backward(weights, vectors, offsets)
        ctx.mark_non_differentiable(weights)
        return sums, weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_sums: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        weights, vectors, offsets = ctx.saved_tensors
        grad_scores, grad_vectors = torch.ops.mian.pool_backward(grad_sums.contiguous(), weights, vectors, offsets)
        return grad_scores, grad_vectors, None
