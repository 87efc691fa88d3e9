"""The softmax over a history, alone, or with the sum of its vectors; ``attention_pooling.h`` is the same on a CPU."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

TILE = 32
"""So many positions at a time."""
WIDEST = 64
"""So many entries of a vector at a time."""


def softmax(scores: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Weights ``(P,)``; see :func:`mian.kernels.attention_pooling.softmax`."""
    weights = torch.zeros_like(scores)
    _softmax[(len(offsets) - 1,)](scores, offsets, weights, TILE=TILE, num_warps=1)
    return weights


def softmax_backward(grad_weights: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The gradient of the scores, float32 ``(P,)``."""
    grad_scores = torch.zeros_like(weights)
    _softmax_backward[(len(offsets) - 1,)](grad_weights, weights, offsets, grad_scores, TILE=TILE, num_warps=1)
    return grad_scores


def pool(scores: torch.Tensor, vectors: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(P,)`` and sums ``(B, d)``; see :func:`mian.kernels.attention_pooling.pool`."""
    weights, sums = torch.zeros_like(scores), vectors.new_empty(len(offsets) - 1, vectors.shape[1])
    _pool[(len(offsets) - 1,)](scores, vectors, offsets, weights, sums, vectors.shape[1], TILE=TILE, WIDE=_wide(vectors))
    return weights, sums


def pool_backward(
    grad_sums: torch.Tensor, weights: torch.Tensor, vectors: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of scores and vectors."""
    grad_scores, grad_vectors = torch.zeros_like(weights), torch.zeros_like(vectors)
    _pool_backward[(len(offsets) - 1,)](
        grad_sums, weights, vectors, offsets, grad_scores, grad_vectors, vectors.shape[1], TILE=TILE, WIDE=_wide(vectors)
    )
    return grad_scores, grad_vectors


def _wide(vectors: torch.Tensor) -> int:
    return min(WIDEST, int(triton.next_power_of_2(vectors.shape[1])))


@triton.jit
def _softmax(scores, offsets, weights, TILE: tl.constexpr):
    start = tl.load(offsets + tl.program_id(0))
    count = tl.load(offsets + tl.program_id(0) + 1) - start
    _weigh(scores + start, count, weights + start, TILE)


@triton.jit
def _softmax_backward(grad_weights, weights, offsets, grad_scores, TILE: tl.constexpr):
    start = tl.load(offsets + tl.program_id(0))
    count = tl.load(offsets + tl.program_id(0) + 1) - start
    _weigh_backward(grad_weights + start, weights + start, count, grad_scores + start, TILE)


@triton.jit
def _pool(scores, vectors, offsets, weights, sums, width, TILE: tl.constexpr, WIDE: tl.constexpr):
    sample = tl.program_id(0)
    start = tl.load(offsets + sample)
    count = tl.load(offsets + sample + 1) - start
    top, total = _weigh(scores + start, count, weights + start, TILE)
    for left in range(0, width, WIDE):
        column = left + tl.arange(0, WIDE)
        added = tl.zeros([WIDE], tl.float32)
        for first in range(0, count, TILE):
            row = first + tl.arange(0, TILE)
            score = tl.load(scores + start + row, mask=row < count, other=float("-inf"))
            is_there = (row < count)[:, None] & (column < width)[None, :]
            vector = tl.load(vectors + (start + row)[:, None] * width + column[None, :], mask=is_there, other=0.0)
            added += tl.sum((tl.exp(score - top) / total)[:, None] * vector, 0)
        tl.store(sums + sample * width + column, added, mask=column < width)


@triton.jit
def _pool_backward(
    grad_sums, weights, vectors, offsets, grad_scores, grad_vectors, width, TILE: tl.constexpr, WIDE: tl.constexpr
):
    sample = tl.program_id(0)
    start = tl.load(offsets + sample)
    count = tl.load(offsets + sample + 1) - start
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        weight = tl.load(weights + start + row, mask=row < count, other=0.0)
        grad_weight = tl.zeros([TILE], tl.float32)
        for left in range(0, width, WIDE):
            column = left + tl.arange(0, WIDE)
            is_there = (row < count)[:, None] & (column < width)[None, :]
            at = (start + row)[:, None] * width + column[None, :]
            came = tl.load(grad_sums + sample * width + column, mask=column < width, other=0.0)
            grad_weight += tl.sum(tl.load(vectors + at, mask=is_there, other=0.0) * came[None, :], 1)
            tl.store(grad_vectors + at, weight[:, None] * came[None, :], mask=is_there)
        tl.store(grad_scores + start + row, grad_weight, mask=row < count)
    tl.debug_barrier()  # what is stored is read again
    _weigh_backward(grad_scores + start, weights + start, count, grad_scores + start, TILE)


@triton.jit
def _weigh(scores, count, weights, TILE: tl.constexpr):
    """Store the softmax of so many scores; gives their highest, and the sum of their powers less it."""
    top = tl.max(tl.full([TILE], float("-inf"), tl.float32), 0)
    total = tl.sum(tl.zeros([TILE], tl.float32), 0)
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        score = tl.load(scores + row, mask=row < count, other=float("-inf"))
        higher = tl.maximum(top, tl.max(score, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(score - higher), 0)
        top = higher
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        score = tl.load(scores + row, mask=row < count, other=float("-inf"))
        tl.store(weights + row, tl.exp(score - top) / total, mask=row < count)
    return top, total


@triton.jit
def _weigh_backward(grad_weights, weights, count, grad_scores, TILE: tl.constexpr):
    """From the gradients of weights to those of scores, which may lie in their place."""
    mean = tl.sum(tl.zeros([TILE], tl.float32), 0)
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        weight = tl.load(weights + row, mask=row < count, other=0.0)
        mean += tl.sum(weight * tl.load(grad_weights + row, mask=row < count, other=0.0), 0)
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        weight = tl.load(weights + row, mask=row < count, other=0.0)
        grad_weight = tl.load(grad_weights + row, mask=row < count, other=0.0)
        tl.store(grad_scores + row, weight * (grad_weight - mean), mask=row < count)
