"""Self-attention; ``self_attention.h`` is the same on a CPU."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

TILE = 32
"""So many positions at a time."""


def attention(
    query_key_value: torch.Tensor, offsets: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`mian.kernels.self_attention.attention`; also each row's maximum and the reciprocal of its sum, for the backward pass."""
    positions, width = len(query_key_value), query_key_value.shape[1] // 3
    output = query_key_value.new_zeros(positions, width)
    tops, inverses = query_key_value.new_zeros(2, positions, heads)
    _attention[(len(offsets) - 1, heads)](query_key_value, offsets, output, tops, inverses, heads, **_head_sizes(width, heads))
    return output, tops, inverses


def attention_backward(
    grad_output: torch.Tensor,
    query_key_value: torch.Tensor,
    offsets: torch.Tensor,
    output: torch.Tensor,
    tops: torch.Tensor,
    inverses: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """The gradient of ``query_key_value``, float32 ``(P, 3 * width)``."""
    grad = torch.zeros_like(query_key_value)
    _attention_backward[(len(offsets) - 1, heads)](
        grad_output, query_key_value, offsets, output, tops, inverses, grad, heads, **_head_sizes(output.shape[1], heads)
    )
    return grad


def _head_sizes(width: int, heads: int) -> dict[str, int | float]:
    head_width = width // heads
    wide = max(16, triton.next_power_of_2(head_width))  # a product of tiles takes no fewer columns
    return {"OF_HEAD": head_width, "SCALE": 1 / math.sqrt(head_width), "TILE": TILE, "WIDE": wide, "num_warps": 2}


@triton.jit
def _attention(
    query_key_value,
    offsets,
    output,
    tops,
    inverses,
    heads,
    OF_HEAD: tl.constexpr,
    SCALE: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    head = tl.program_id(1)
    start = tl.load(offsets + tl.program_id(0))
    end = tl.load(offsets + tl.program_id(0) + 1)
    width = heads * OF_HEAD
    for first in range(start, end, TILE):
        query = _vectors(query_key_value, first, end, 3 * width, head, OF_HEAD, TILE, WIDE)
        top = tl.full([TILE], float("-inf"), tl.float32)
        total = tl.zeros([TILE], tl.float32)
        sums = tl.zeros([TILE, WIDE], tl.float32)
        for other in range(start, end, TILE):
            key = _vectors(query_key_value + width, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
            value = _vectors(query_key_value + 2 * width, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
            scores = tl.where((other + tl.arange(0, TILE) < end)[None, :], scores, float("-inf"))
            higher = tl.maximum(top, tl.max(scores, 1))
            powers = tl.exp(scores - higher[:, None])
            shrink = tl.exp(top - higher)
            total = total * shrink + tl.sum(powers, 1)
            sums = sums * shrink[:, None] + tl.dot(powers, value, input_precision="ieee")
            top = higher
        inverse = 1.0 / total
        _store(output, sums * inverse[:, None], first, end, width, head, OF_HEAD, TILE, WIDE)
        row = first + tl.arange(0, TILE)
        tl.store(tops + row * heads + head, top, mask=row < end)
        tl.store(inverses + row * heads + head, inverse, mask=row < end)


@triton.jit
def _attention_backward(
    grad_output,
    query_key_value,
    offsets,
    output,
    tops,
    inverses,
    grad,
    heads,
    OF_HEAD: tl.constexpr,
    SCALE: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    head = tl.program_id(1)
    start = tl.load(offsets + tl.program_id(0))
    end = tl.load(offsets + tl.program_id(0) + 1)
    width = heads * OF_HEAD
    for other in range(start, end, TILE):  # keys and values: what all queries made of them
        key = _vectors(query_key_value + width, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
        value = _vectors(query_key_value + 2 * width, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
        grad_key = tl.zeros([TILE, WIDE], tl.float32)
        grad_value = tl.zeros([TILE, WIDE], tl.float32)
        for first in range(start, end, TILE):
            query = _vectors(query_key_value, first, end, 3 * width, head, OF_HEAD, TILE, WIDE)
            came = _vectors(grad_output, first, end, width, head, OF_HEAD, TILE, WIDE)
            gave = _vectors(output, first, end, width, head, OF_HEAD, TILE, WIDE)
            weights, grad_scores = _scores_backward(
                query, key, value, came, gave, tops, inverses, first, other, end, heads, head, SCALE, TILE
            )
            grad_value += tl.dot(tl.trans(weights), came, input_precision="ieee")
            grad_key += tl.dot(tl.trans(grad_scores), query, input_precision="ieee")
        _store(grad + width, grad_key, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
        _store(grad + 2 * width, grad_value, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
    for first in range(start, end, TILE):  # queries: what each made of all keys
        query = _vectors(query_key_value, first, end, 3 * width, head, OF_HEAD, TILE, WIDE)
        came = _vectors(grad_output, first, end, width, head, OF_HEAD, TILE, WIDE)
        gave = _vectors(output, first, end, width, head, OF_HEAD, TILE, WIDE)
        grad_query = tl.zeros([TILE, WIDE], tl.float32)
        for other in range(start, end, TILE):
            key = _vectors(query_key_value + width, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
            value = _vectors(query_key_value + 2 * width, other, end, 3 * width, head, OF_HEAD, TILE, WIDE)
            _, grad_scores = _scores_backward(
                query, key, value, came, gave, tops, inverses, first, other, end, heads, head, SCALE, TILE
            )
            grad_query += tl.dot(grad_scores, key, input_precision="ieee")
        _store(grad, grad_query, first, end, 3 * width, head, OF_HEAD, TILE, WIDE)


@triton.jit
def _scores_backward(
    query, key, value, came, gave, tops, inverses, first, other, end, heads, head, SCALE: tl.constexpr, TILE: tl.constexpr
):
    """Weights of queries from ``first`` on and keys from ``other`` on, and the gradient of their scores before they are scaled."""
    row = first + tl.arange(0, TILE)
    top = tl.load(tops + row * heads + head, mask=row < end, other=0.0)
    inverse = tl.load(inverses + row * heads + head, mask=row < end, other=0.0)
    is_pair = (row < end)[:, None] & (other + tl.arange(0, TILE) < end)[None, :]
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
    weights = tl.where(is_pair, tl.exp(scores - top[:, None]) * inverse[:, None], 0.0)
    grad_weights = tl.dot(came, tl.trans(value), input_precision="ieee")
    return weights, weights * (grad_weights - tl.sum(came * gave, 1)[:, None]) * SCALE


@triton.jit
def _vectors(matrix, first, end, width, head, OF_HEAD: tl.constexpr, TILE: tl.constexpr, WIDE: tl.constexpr):
    """A head's vectors of TILE positions, whose rows are ``width`` long; 0 behind the last position and behind the head."""
    row, column = first + tl.arange(0, TILE), tl.arange(0, WIDE)
    at = row[:, None] * width + head * OF_HEAD + column[None, :]
    return tl.load(matrix + at, mask=(row < end)[:, None] & (column < OF_HEAD)[None, :], other=0.0)


@triton.jit
def _store(matrix, vectors, first, end, width, head, OF_HEAD: tl.constexpr, TILE: tl.constexpr, WIDE: tl.constexpr):
    row, column = first + tl.arange(0, TILE), tl.arange(0, WIDE)
    at = row[:, None] * width + head * OF_HEAD + column[None, :]
    tl.store(matrix + at, vectors, mask=(row < end)[:, None] & (column < OF_HEAD)[None, :])
