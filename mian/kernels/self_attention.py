"""Multi-head self-attention over packed histories."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from mian.kernels.jagged import JaggedLayout
from mian.kernels.load import fits_histories


def attention(query_key_value: torch.Tensor, layout: JaggedLayout, heads: int) -> torch.Tensor:
    """Let each position attend to all of its sample's: Zhang et al. 2021, Eq. 4, without its projections.

    Scores are scaled by ``1 / sqrt(head_dim)``.

    Args:
        query_key_value: float ``(P, 3 * heads * head_dim)``: all heads' queries, then all heads' keys, then all heads' values.
        layout: which sample each of the P positions is of.
        heads: how many.

    Returns:
        ``(P, heads * head_dim)``, of the same type, the heads one after the other; bfloat16 is worked on in float32.
    """
    if fits_histories(query_key_value):
        output: torch.Tensor = _Compiled.apply(query_key_value.float().contiguous(), layout.offsets, heads)  # type: ignore[no-untyped-call]
        return output.to(query_key_value.dtype)
    B, T = layout.shape
    padded = layout.pad(query_key_value).view(B, T, 3, heads, -1)
    query, key, value = padded.permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
    # An empty history attends to its padding, which no one reads: rows without any true entry would be NaN.
    mask = layout.mask | (layout.lengths == 0)[:, None]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
    return layout.pack(attended.transpose(1, 2).reshape(B, T, -1))


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_key_value: torch.Tensor, offsets: torch.Tensor, heads: int) -> torch.Tensor:
        output, tops, inverses = torch.ops.mian.attention(query_key_value, offsets, heads)
        ctx.save_for_backward(query_key_value, offsets, output, tops, inverses)
        ctx.heads = heads
        return output  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return torch.ops.mian.attention_backward(grad_output.contiguous(), *ctx.saved_tensors, ctx.heads), None, None
