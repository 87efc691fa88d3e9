"""Dropout that costs no more than a copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mian.kernels.load import fits_as_float32


class Dropout(nn.Dropout):
    """``nn.Dropout`` that uses all threads of a CPU.

    On a CPU, torch draws the dropped entries one after the other. Here each entry is decided by a seed and the place of the entry.
    The seed comes from torch's generator, so ``torch.manual_seed`` decides which entries are dropped.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop entries in training mode.

        Args:
            x: Floats of any shape.

        Returns:
            The shape and type of ``x``. In training mode each entry is 0 with probability ``p``, and else divided by ``1 - p``; in
            evaluation mode ``x`` is returned unchanged.
        """
        to_be_code = torch.compiler.is_compiling()  # by torch.compile, which makes torch's own a part of the loops around it
        if not self.training or not 0.0 < self.p < 1.0 or to_be_code or not fits_as_float32(x):
            return super().forward(x)
        seed = int(torch.randint(-(2**63), 2**63 - 1, ()))
        kept: torch.Tensor = _Compiled.apply(x.float().contiguous(), self.p, seed)  # type: ignore[no-untyped-call]
        return kept.to(x.dtype)


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, probability: float, seed: int) -> torch.Tensor:
        ctx.drawn = probability, seed
        return torch.ops.mian.dropout(x, probability, seed)  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return torch.ops.mian.dropout(grad.contiguous(), *ctx.drawn), None, None
