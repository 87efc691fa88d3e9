"""The operators of packed histories for a GPU, in Triton; see ``attention.h`` and ``pool.h`` for the same on a CPU.

They read the packed positions where they lie: nothing is padded, copied or masked. A program works on one sample, and one head of it, in
tiles of :data:`TILE` positions, so that histories of any length fit. What is added up, is in float32.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

TILE = 32
SAMPLES = 16
"""So many histories are read side by side: a product of tiles takes no fewer rows."""
WIDEST = 64
"""So many entries of a vector at a time, where vectors are added up."""


_library = torch.library.Library("mian", "FRAGMENT")  # held: what it defines goes with it


def register() -> None:
    """Tell torch that ``torch.ops.mian`` has these for a GPU, and of those that a CPU has not."""
    _library.define("recurrence(Tensor x, Tensor attention, Tensor recurrent, Tensor offsets) -> Tensor")
    _library.define(
        "recurrence_backward(Tensor grad_states, Tensor x, Tensor attention, Tensor recurrent, Tensor offsets, Tensor states) -> "
        "(Tensor, Tensor, Tensor, Tensor)"
    )
    for name, function in _OPERATORS.items():
        _library.impl(name, function, "CUDA")
    torch.library.register_fake(
        "mian::recurrence", lambda x, attention, recurrent, offsets: x.new_empty(x.shape[0], recurrent.shape[1])
    )
    torch.library.register_fake(
        "mian::recurrence_backward",
        lambda grad_states, x, attention, *_: (
            torch.empty_like(x),
            torch.empty_like(attention),
            torch.empty_like(x),
            torch.empty_like(grad_states),
        ),
    )


def attention(
    query_key_value: torch.Tensor, offsets: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`mian.kernels.attention.attention`; and each row's greatest score, and 1 over the sum of its powers, for the way back."""
    positions, width = len(query_key_value), query_key_value.shape[1] // 3
    output = query_key_value.new_zeros(positions, width)
    tops, inverses = query_key_value.new_zeros(2, positions, heads)
    _attention[(len(offsets) - 1, heads)](query_key_value, offsets, output, tops, inverses, heads, **_of_heads(width, heads))
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
    """The gradient of ``query_key_value``."""
    grad = torch.zeros_like(query_key_value)
    _attention_backward[(len(offsets) - 1, heads)](
        grad_output, query_key_value, offsets, output, tops, inverses, grad, heads, **_of_heads(output.shape[1], heads)
    )
    return grad


def pool(scores: torch.Tensor, vectors: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(P,)`` and sums ``(B, d)``; see :func:`mian.kernels.pool.pool`."""
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


def recurrence(x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """See :func:`mian.kernels.recurrence.recurrence`."""
    hidden, samples = recurrent.shape[1], len(offsets) - 1
    states = x.new_zeros(len(x), hidden)
    _recurrence[(triton.cdiv(samples, SAMPLES),)](x, attention, recurrent, offsets, states, samples, **_of_states(hidden))
    return states


def recurrence_backward(
    grad_states: torch.Tensor,
    x: torch.Tensor,
    attention: torch.Tensor,
    recurrent: torch.Tensor,
    offsets: torch.Tensor,
    states: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of ``x`` and ``attention``; what goes through ``recurrent``, ``(P, 3 H)``, and the states that it met."""
    hidden, samples = recurrent.shape[1], len(offsets) - 1
    grad_x, through = torch.zeros_like(x), torch.zeros_like(x)
    grad_attention, before = torch.zeros_like(attention), torch.zeros_like(states)
    _recurrence_backward[(triton.cdiv(samples, SAMPLES),)](
        grad_states,
        x,
        attention,
        recurrent,
        offsets,
        states,
        grad_x,
        grad_attention,
        through,
        before,
        samples,
        **_of_states(hidden),
    )
    return grad_x, grad_attention, through, before


_OPERATORS = {
    "attention": attention,
    "attention_backward": attention_backward,
    "pool": pool,
    "pool_backward": pool_backward,
    "recurrence": recurrence,
    "recurrence_backward": recurrence_backward,
}


def _of_heads(width: int, heads: int) -> dict[str, int | float]:
    of_head = width // heads
    wide = max(16, triton.next_power_of_2(of_head))  # a product of tiles takes no fewer columns
    return {"OF_HEAD": of_head, "SCALE": 1 / math.sqrt(of_head), "TILE": TILE, "WIDE": wide, "num_warps": 2}


def _of_states(hidden: int) -> dict[str, int]:
    return {"HIDDEN": hidden, "WIDE": max(16, triton.next_power_of_2(hidden)), "SAMPLES": SAMPLES}


def _wide(vectors: torch.Tensor) -> int:
    return min(WIDEST, int(triton.next_power_of_2(vectors.shape[1])))


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
    count = tl.load(offsets + tl.program_id(0) + 1) - start
    width = heads * OF_HEAD
    column = tl.arange(0, WIDE)
    is_column = column[None, :] < OF_HEAD
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        is_row = row < count
        at = (start + row)[:, None] * (3 * width) + head * OF_HEAD + column[None, :]
        query = tl.load(query_key_value + at, mask=is_row[:, None] & is_column, other=0.0)
        top = tl.full([TILE], float("-inf"), tl.float32)
        total = tl.zeros([TILE], tl.float32)
        sums = tl.zeros([TILE, WIDE], tl.float32)
        for other in range(0, count, TILE):
            seen = other + tl.arange(0, TILE)
            is_seen = seen < count
            at_seen = (start + seen)[:, None] * (3 * width) + head * OF_HEAD + column[None, :]
            key = tl.load(query_key_value + at_seen + width, mask=is_seen[:, None] & is_column, other=0.0)
            value = tl.load(query_key_value + at_seen + 2 * width, mask=is_seen[:, None] & is_column, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
            scores = tl.where(is_seen[None, :], scores, float("-inf"))
            higher = tl.maximum(top, tl.max(scores, 1))
            powers = tl.exp(scores - higher[:, None])
            shrink = tl.exp(top - higher)
            total = total * shrink + tl.sum(powers, 1)
            sums = sums * shrink[:, None] + tl.dot(powers, value, input_precision="ieee")
            top = higher
        inverse = 1.0 / total
        at_output = (start + row)[:, None] * width + head * OF_HEAD + column[None, :]
        tl.store(output + at_output, sums * inverse[:, None], mask=is_row[:, None] & is_column)
        tl.store(tops + (start + row) * heads + head, top, mask=is_row)
        tl.store(inverses + (start + row) * heads + head, inverse, mask=is_row)


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
    count = tl.load(offsets + tl.program_id(0) + 1) - start
    width = heads * OF_HEAD
    column = tl.arange(0, WIDE)
    is_column = column[None, :] < OF_HEAD
    for other in range(0, count, TILE):  # keys and values: what all rows made of them
        seen = other + tl.arange(0, TILE)
        is_seen = seen < count
        at_seen = (start + seen)[:, None] * (3 * width) + head * OF_HEAD + column[None, :]
        key = tl.load(query_key_value + at_seen + width, mask=is_seen[:, None] & is_column, other=0.0)
        value = tl.load(query_key_value + at_seen + 2 * width, mask=is_seen[:, None] & is_column, other=0.0)
        of_key = tl.zeros([TILE, WIDE], tl.float32)
        of_value = tl.zeros([TILE, WIDE], tl.float32)
        for first in range(0, count, TILE):
            row = first + tl.arange(0, TILE)
            is_row = row < count
            at = (start + row)[:, None] * (3 * width) + head * OF_HEAD + column[None, :]
            at_output = (start + row)[:, None] * width + head * OF_HEAD + column[None, :]
            query = tl.load(query_key_value + at, mask=is_row[:, None] & is_column, other=0.0)
            came = tl.load(grad_output + at_output, mask=is_row[:, None] & is_column, other=0.0)
            gave = tl.load(output + at_output, mask=is_row[:, None] & is_column, other=0.0)
            top = tl.load(tops + (start + row) * heads + head, mask=is_row, other=0.0)
            inverse = tl.load(inverses + (start + row) * heads + head, mask=is_row, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
            weights = tl.where(is_seen[None, :] & is_row[:, None], tl.exp(scores - top[:, None]) * inverse[:, None], 0.0)
            of_value += tl.dot(tl.trans(weights), came, input_precision="ieee")
            of_weights = tl.dot(came, tl.trans(value), input_precision="ieee")
            of_scores = weights * (of_weights - tl.sum(came * gave, 1)[:, None]) * SCALE
            of_key += tl.dot(tl.trans(of_scores), query, input_precision="ieee")
        tl.store(grad + at_seen + width, of_key, mask=is_seen[:, None] & is_column)
        tl.store(grad + at_seen + 2 * width, of_value, mask=is_seen[:, None] & is_column)
    for first in range(0, count, TILE):  # queries: what each row made of all keys
        row = first + tl.arange(0, TILE)
        is_row = row < count
        at = (start + row)[:, None] * (3 * width) + head * OF_HEAD + column[None, :]
        at_output = (start + row)[:, None] * width + head * OF_HEAD + column[None, :]
        query = tl.load(query_key_value + at, mask=is_row[:, None] & is_column, other=0.0)
        came = tl.load(grad_output + at_output, mask=is_row[:, None] & is_column, other=0.0)
        gave = tl.load(output + at_output, mask=is_row[:, None] & is_column, other=0.0)
        top = tl.load(tops + (start + row) * heads + head, mask=is_row, other=0.0)
        inverse = tl.load(inverses + (start + row) * heads + head, mask=is_row, other=0.0)
        of_query = tl.zeros([TILE, WIDE], tl.float32)
        for other in range(0, count, TILE):
            seen = other + tl.arange(0, TILE)
            is_seen = seen < count
            at_seen = (start + seen)[:, None] * (3 * width) + head * OF_HEAD + column[None, :]
            key = tl.load(query_key_value + at_seen + width, mask=is_seen[:, None] & is_column, other=0.0)
            value = tl.load(query_key_value + at_seen + 2 * width, mask=is_seen[:, None] & is_column, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
            weights = tl.where(is_seen[None, :] & is_row[:, None], tl.exp(scores - top[:, None]) * inverse[:, None], 0.0)
            of_weights = tl.dot(came, tl.trans(value), input_precision="ieee")
            of_scores = weights * (of_weights - tl.sum(came * gave, 1)[:, None]) * SCALE
            of_query += tl.dot(of_scores, key, input_precision="ieee")
        tl.store(grad + at, of_query, mask=is_row[:, None] & is_column)


@triton.jit
def _pool(scores, vectors, offsets, weights, sums, width, TILE: tl.constexpr, WIDE: tl.constexpr):
    sample = tl.program_id(0)
    start = tl.load(offsets + sample)
    count = tl.load(offsets + sample + 1) - start
    top = tl.max(tl.full([TILE], float("-inf"), tl.float32), 0)
    total = tl.sum(tl.zeros([TILE], tl.float32), 0)
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        score = tl.load(scores + start + row, mask=row < count, other=float("-inf"))
        higher = tl.maximum(top, tl.max(score, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(score - higher), 0)
        top = higher
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        score = tl.load(scores + start + row, mask=row < count, other=float("-inf"))
        tl.store(weights + start + row, tl.exp(score - top) / total, mask=row < count)
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
    mean = tl.sum(tl.zeros([TILE], tl.float32), 0)
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        weight = tl.load(weights + start + row, mask=row < count, other=0.0)
        of_weight = tl.zeros([TILE], tl.float32)
        for left in range(0, width, WIDE):
            column = left + tl.arange(0, WIDE)
            is_there = (row < count)[:, None] & (column < width)[None, :]
            at = (start + row)[:, None] * width + column[None, :]
            came = tl.load(grad_sums + sample * width + column, mask=column < width, other=0.0)
            of_weight += tl.sum(tl.load(vectors + at, mask=is_there, other=0.0) * came[None, :], 1)
            tl.store(grad_vectors + at, weight[:, None] * came[None, :], mask=is_there)
        mean += tl.sum(weight * of_weight, 0)
        tl.store(grad_scores + start + row, of_weight, mask=row < count)
    tl.debug_barrier()
    for first in range(0, count, TILE):
        row = first + tl.arange(0, TILE)
        weight = tl.load(weights + start + row, mask=row < count, other=0.0)
        of_weight = tl.load(grad_scores + start + row, mask=row < count, other=0.0)
        tl.store(grad_scores + start + row, weight * (of_weight - mean), mask=row < count)


@triton.jit
def _recurrence(
    x, attention, recurrent, offsets, states, samples, HIDDEN: tl.constexpr, WIDE: tl.constexpr, SAMPLES: tl.constexpr
):
    sample = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    start = tl.load(offsets + sample, mask=sample < samples, other=0)
    end = tl.load(offsets + sample + 1, mask=sample < samples, other=0)
    count = end - start
    column = tl.arange(0, WIDE)
    is_column = column < HIDDEN
    at_weight = column[None, :] * HIDDEN + column[:, None]  # transposed
    is_weight = is_column[None, :] & is_column[:, None]
    of_r = tl.load(recurrent + at_weight, mask=is_weight, other=0.0)
    of_u = tl.load(recurrent + HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    of_c = tl.load(recurrent + 2 * HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    h = tl.zeros([SAMPLES, WIDE], tl.float32)
    for step in range(0, tl.max(count, 0)):
        is_there = step < count
        place = end - 1 - step
        is_value = is_there[:, None] & is_column[None, :]
        at = place[:, None] * (3 * HIDDEN) + column[None, :]
        r = tl.sigmoid(tl.load(x + at, mask=is_value, other=0.0) + tl.dot(h, of_r, input_precision="ieee"))
        u = tl.sigmoid(tl.load(x + at + HIDDEN, mask=is_value, other=0.0) + tl.dot(h, of_u, input_precision="ieee"))
        before_c = tl.load(x + at + 2 * HIDDEN, mask=is_value, other=0.0) + r * tl.dot(h, of_c, input_precision="ieee")
        c = 2 * tl.sigmoid(2 * before_c) - 1  # its hyperbolic tangent
        a = tl.load(attention + place, mask=is_there, other=0.0)
        h += u * a[:, None] * (c - h)
        tl.store(states + place[:, None] * HIDDEN + column[None, :], h, mask=is_value)


@triton.jit
def _recurrence_backward(
    grad_states,
    x,
    attention,
    recurrent,
    offsets,
    states,
    grad_x,
    grad_attention,
    through,
    before,
    samples,
    HIDDEN: tl.constexpr,
    WIDE: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    sample = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    start = tl.load(offsets + sample, mask=sample < samples, other=0)
    count = tl.load(offsets + sample + 1, mask=sample < samples, other=0) - start
    column = tl.arange(0, WIDE)
    is_column = column < HIDDEN
    at_weight = column[:, None] * HIDDEN + column[None, :]
    is_weight = is_column[None, :] & is_column[:, None]
    of_r = tl.load(recurrent + at_weight, mask=is_weight, other=0.0)
    of_u = tl.load(recurrent + HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    of_c = tl.load(recurrent + 2 * HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    later = tl.zeros([SAMPLES, WIDE], tl.float32)
    for step in range(0, tl.max(count, 0)):  # from the most recent behavior back
        is_there = step < count
        place = start + step
        is_value = is_there[:, None] & is_column[None, :]
        is_older = (step + 1 < count)[:, None] & is_column[None, :]
        at = place[:, None] * (3 * HIDDEN) + column[None, :]
        at_state = place[:, None] * HIDDEN + column[None, :]
        h = tl.load(states + at_state + HIDDEN, mask=is_older, other=0.0)
        r = tl.sigmoid(tl.load(x + at, mask=is_value, other=0.0) + tl.dot(h, tl.trans(of_r), input_precision="ieee"))
        u = tl.sigmoid(tl.load(x + at + HIDDEN, mask=is_value, other=0.0) + tl.dot(h, tl.trans(of_u), input_precision="ieee"))
        product = tl.dot(h, tl.trans(of_c), input_precision="ieee")
        c = 2 * tl.sigmoid(2 * (tl.load(x + at + 2 * HIDDEN, mask=is_value, other=0.0) + r * product)) - 1
        a = tl.load(attention + place, mask=is_there, other=0.0)[:, None]
        came = tl.load(grad_states + at_state, mask=is_value, other=0.0) + later
        to_c = came * u * a * (1 - c * c)
        to_r = to_c * product * r * (1 - r)
        to_u = came * (c - h) * a * u * (1 - u)
        tl.store(grad_x + at, to_r, mask=is_value)
        tl.store(grad_x + at + HIDDEN, to_u, mask=is_value)
        tl.store(grad_x + at + 2 * HIDDEN, to_c, mask=is_value)
        tl.store(through + at, to_r, mask=is_value)
        tl.store(through + at + HIDDEN, to_u, mask=is_value)
        tl.store(through + at + 2 * HIDDEN, to_c * r, mask=is_value)
        tl.store(before + at_state, h, mask=is_value)
        tl.store(grad_attention + place, tl.sum(came * (c - h) * u, 1), mask=is_there)
        later = came * (1 - u * a)
        later += tl.dot(to_r, of_r, input_precision="ieee") + tl.dot(to_u, of_u, input_precision="ieee")
        later += tl.dot(to_c * r, of_c, input_precision="ieee")
        later = tl.where(is_there[:, None], later, 0.0)
