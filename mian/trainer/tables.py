"""Optimizers of embedding tables: rows that a batch does not hold stay as they are, and so do their moments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) on the rows that have a gradient, as TensorFlow's ``LazyAdam`` and torch's ``SparseAdam`` have it.

    The bias of the moments is corrected by the number of steps, not by how often a row was seen.

    Args:
        tables: parameters ``(rows, width)``; their gradients are coalesced sparse tensors.
        lr: the learning rate.
        betas: what is left of the first and second moment after a step.
        eps: added to the root of the second moment.
    """

    def __init__(self, tables: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], eps: float = 1e-8) -> None:
        super().__init__(tables, {"lr": lr, "betas": betas, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(table),
                    "exp_avg_sq": torch.zeros_like(table),
                }

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                state["step"] += 1
                step = float(state["step"])
                rows, gradient = table.grad.indices()[0], table.grad.values()
                mean = state["exp_avg"].index_select(0, rows).lerp_(gradient, 1 - beta1)
                state["exp_avg"].index_copy_(0, rows, mean)
                square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                state["exp_avg_sq"].index_copy_(0, rows, square)
                root = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
                update = mean.div_(root).mul_(-group["lr"] / (1 - beta1**step))
                table.index_copy_(0, rows, update.add_(table.index_select(0, rows)))
