"""The steps of a gated recurrent unit; ``recurrence.h`` is the same on a CPU."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SAMPLES = 16
"""So many histories are read side by side: a product of tiles takes no fewer rows."""


def recurrence(x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """See :func:`mian.kernels.recurrence.recurrence`."""
    hidden, samples = recurrent.shape[1], len(offsets) - 1
    states = x.new_zeros(len(x), hidden)
    _recurrence[(triton.cdiv(samples, SAMPLES),)](x, attention, recurrent, offsets, states, samples, **_state_sizes(hidden))
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
        **_state_sizes(hidden),
    )
    return grad_x, grad_attention, through, before


def _state_sizes(hidden: int) -> dict[str, int]:
    return {"HIDDEN": hidden, "WIDE": max(16, triton.next_power_of_2(hidden)), "SAMPLES": SAMPLES}


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
    w_r = tl.load(recurrent + at_weight, mask=is_weight, other=0.0)
    w_u = tl.load(recurrent + HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    w_c = tl.load(recurrent + 2 * HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    h = tl.zeros([SAMPLES, WIDE], tl.float32)
    for step in range(0, tl.max(count, 0)):
        is_there = step < count
        place = end - 1 - step
        is_value = is_there[:, None] & is_column[None, :]
        at = place[:, None] * (3 * HIDDEN) + column[None, :]
        r = tl.sigmoid(tl.load(x + at, mask=is_value, other=0.0) + tl.dot(h, w_r, input_precision="ieee"))
        u = tl.sigmoid(tl.load(x + at + HIDDEN, mask=is_value, other=0.0) + tl.dot(h, w_u, input_precision="ieee"))
        before_c = tl.load(x + at + 2 * HIDDEN, mask=is_value, other=0.0) + r * tl.dot(h, w_c, input_precision="ieee")
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
    w_r = tl.load(recurrent + at_weight, mask=is_weight, other=0.0)
    w_u = tl.load(recurrent + HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    w_c = tl.load(recurrent + 2 * HIDDEN * HIDDEN + at_weight, mask=is_weight, other=0.0)
    later = tl.zeros([SAMPLES, WIDE], tl.float32)
    for step in range(0, tl.max(count, 0)):  # from the most recent behavior back
        is_there = step < count
        place = start + step
        is_value = is_there[:, None] & is_column[None, :]
        is_older = (step + 1 < count)[:, None] & is_column[None, :]
        at = place[:, None] * (3 * HIDDEN) + column[None, :]
        at_state = place[:, None] * HIDDEN + column[None, :]
        h = tl.load(states + at_state + HIDDEN, mask=is_older, other=0.0)
        r = tl.sigmoid(tl.load(x + at, mask=is_value, other=0.0) + tl.dot(h, tl.trans(w_r), input_precision="ieee"))
        u = tl.sigmoid(tl.load(x + at + HIDDEN, mask=is_value, other=0.0) + tl.dot(h, tl.trans(w_u), input_precision="ieee"))
        product = tl.dot(h, tl.trans(w_c), input_precision="ieee")
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
        later += tl.dot(to_r, w_r, input_precision="ieee") + tl.dot(to_u, w_u, input_precision="ieee")
        later += tl.dot(to_c * r, w_c, input_precision="ieee")
        later = tl.where(is_there[:, None], later, 0.0)
