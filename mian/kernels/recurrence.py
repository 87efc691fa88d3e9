"""The steps of a gated recurrent unit over packed histories."""

from __future__ import annotations

from typing import Any

import torch

from mian.kernels.load import fits_histories

WIDEST_STATE = {"cuda": 64, "cpu": 128}
"""By device: larger matrices U do not fit beside the states at hand, and one product for all histories at a step is faster."""


def fits_recurrence(vectors: torch.Tensor, hidden: int) -> bool:
    """Whether :func:`recurrence` reads such vectors where these are, with states of this width."""
    return fits_histories(vectors) and hidden <= WIDEST_STATE[vectors.device.type]


def recurrence(x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Read each history from its oldest behavior to the most recent one; the equations are those of :class:`mian.layers.GRU`.

    Only where :func:`fits_recurrence` says so.

    Args:
        x: float32 ``(P, 3 H)``: ``W i + b`` of r, of u, and of the candidate state.
        attention: float32 ``(P,)``.
        recurrent: float32 ``(3 H, H)``: U of r, of u, and of the candidate state.
        offsets: int64 ``(B + 1,)``, see :class:`mian.kernels.JaggedLayout`; the most recent behavior of a history is its first.

    Returns:
        The state after each behavior, ``(P, H)``.
    """
    states: torch.Tensor = _Compiled.apply(x.contiguous(), attention.contiguous(), recurrent.contiguous(), offsets)  # type: ignore[no-untyped-call]
    return states


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor, offsets: torch.Tensor
    ) -> torch.Tensor:
        states = torch.ops.mian.recurrence(x, attention, recurrent, offsets)
        ctx.save_for_backward(x, attention, recurrent, offsets, states)
        return states  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        grad_x, grad_attention, through, before = torch.ops.mian.recurrence_backward(grad_states.contiguous(), *ctx.saved_tensors)
        return grad_x, grad_attention, through.t() @ before, None
