"""Dice, the activation of the Deep Interest Network, and the batch statistics that it needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class BatchNormalization(nn.Module):
    """Normalize columns by the mean and variance of the batch in training, and by moving averages of both otherwise; no scale, no shift.

    Each rank normalizes by its own batch. The moving averages follow the mean of the batch statistics over all ranks, so they are the
    same on all ranks, and neither scores nor checkpoints depend on the rank. The batch statistics are exchanged together with the
    gradients; then the step of the trainer calls :meth:`follow`. A training loop of your own has to call :meth:`follow` after each step.

    Args:
        width: how many columns.
        eps: added to the variance.
        momentum: the fraction of the way that a moving average moves towards the statistic of a batch.

    Attributes:
        counted: bool ``(N,)``, which rows of the next input count for the batch statistics; None counts all. Rows that do not count
            are normalized as well.
        moving: the moving averages, ``(2, width)``: mean and variance.
        batch_statistics: mean and variance of the newest batch, ``(2, width)``.
    """

    def __init__(self, width: int, eps: float, momentum: float = 0.1) -> None:
        super().__init__()
        self._eps = eps
        self._momentum = momentum
        self.counted: torch.Tensor | None = None
        self.moving: torch.Tensor
        self.batch_statistics: torch.Tensor
        start = torch.stack([torch.zeros(width), torch.ones(width)])
        self.register_buffer("moving", start)
        self.register_buffer("batch_statistics", start.clone(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize, float ``(N, width)`` to float ``(N, width)``. A batch of less than two rows has no variance: it is as elsewhere."""
        if not self.training or len(x) < 2:
            if self.training:
                self.batch_statistics.copy_(self.moving)
            return F.batch_norm(x, self.moving[0], self.moving[1], eps=self._eps)
        if self.counted is not None:
            return self._of_counted(x, self.counted[:, None])
        normalized, mean, inverse = torch.native_batch_norm(x, None, None, None, None, True, 0.0, self._eps)
        with torch.no_grad():
            self.batch_statistics[0].copy_(mean)
            self.batch_statistics[1].copy_(inverse.pow(-2) - self._eps)
        return normalized

    def _of_counted(self, x: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """How many rows count is not asked for, so that a GPU is not waited for."""
        rows = counted.sum()
        mean = (x * counted).sum(dim=0) / rows.clamp(min=1)
        away = x - mean
        variance = (away * away * counted).sum(dim=0) / rows.clamp(min=1)
        has_variance = rows >= 2
        with torch.no_grad():
            self.batch_statistics.copy_(torch.where(has_variance, torch.stack([mean, variance]), self.moving))
        elsewhere = (x - self.moving[0]) * (self.moving[1] + self._eps).rsqrt()
        return torch.where(has_variance, away * (variance + self._eps).rsqrt(), elsewhere)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averages towards ``batch_statistics``."""
        self.moving.lerp_(self.batch_statistics, self._momentum)


class Dice(nn.Module):
    """``p(s) s + (1 - p(s)) alpha s``, where ``p(s)`` is the sigmoid of s, normalized: Zhou et al. 2018, section 5.2.

    PReLU whose bend lies where the data is. ``alpha`` is learned, a number a column; it starts at 0, which the paper does not say.

    Args:
        width: how many columns.
        eps: the paper's.
    """

    def __init__(self, width: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.normalization = BatchNormalization(width, eps)

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Activate, float ``(N, width)`` to float ``(N, width)``."""
        p = torch.sigmoid(self.normalization(s))
        return s * (p + (1 - p) * self.alpha)
