"""Optimizers of embedding tables: rows that a batch does not hold stay as they are, and so do their moments."""

from __future__ import annotations

from typing import Protocol

import torch

from mian.kernels import lazy_adam_, rowwise_adagrad_


class TableOptimizer(Protocol):
    """Updates rows of a table.

    Attributes:
        state: the tensors that it remembers, by name; those of more than no dimension have a row for each of the table's.
    """

    state: dict[str, torch.Tensor]

    def step(self, rows: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows that have a gradient.

        Args:
            rows: int64 ``(N,)``, each once.
            gradients: ``(N, width)``.
            rate: the learning rate.
        """


class LazyAdam:
    """Adam on the rows that have a gradient, as TensorFlow's ``LazyAdam`` and torch's ``SparseAdam`` have it.

    The bias of the moments is corrected by the number of steps, not by how often a row was seen.

    Args:
        table: ``(rows, width)``.
        betas: what is left of the first and second moment after a step.
        eps: added to the root of the second moment.
    """

    def __init__(self, table: torch.Tensor, betas: tuple[float, float], eps: float = 1e-8) -> None:
        self._table = table
        self._betas = betas
        self._eps = eps
        self.state = {
            "step": torch.zeros((), dtype=torch.int64),
            "exp_avg": torch.zeros_like(table),
            "exp_avg_sq": torch.zeros_like(table),
        }

    @torch.no_grad()
    def step(self, rows: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """See :meth:`TableOptimizer.step`."""
        self.state["step"] += 1
        moments = self.state["exp_avg"], self.state["exp_avg_sq"]
        lazy_adam_(self._table, *moments, rows, gradients, rate, self._betas, self._eps, int(self.state["step"]))


class RowwiseAdagrad:
    """Adagrad with one number a row, the sum of its gradients' mean squares: an eighth of Adam's memory at width 4, a 32nd at 16.

    Source: Mudigere et al. 2022 (arXiv:2104.05158), section 4.1.4; FBGEMM's ``EXACT_ROWWISE_ADAGRAD``.

    Args:
        table: ``(rows, width)``.
        eps: added to the root of the sum.
    """

    def __init__(self, table: torch.Tensor, eps: float = 1e-8) -> None:
        self._table = table
        self._eps = eps
        self.state = {"square_sum": table.new_zeros(len(table))}

    @torch.no_grad()
    def step(self, rows: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """See :meth:`TableOptimizer.step`."""
        rowwise_adagrad_(self._table, self.state["square_sum"], rows, gradients, rate, self._eps)
