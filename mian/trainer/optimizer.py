"""Adam for dense weights, lazy Adam for embedding rows, one step over all ranks."""

from __future__ import annotations

from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from mian.config import OptimizerConfig
from mian.models import ClickModel

#: What is left of the learning rate at the end of a linear schedule.
FINAL_SHARE = 0.01


class Optimizer:
    """Both of a model's optimizers, each wrapped by Horovod so that gradients are averaged over the ranks while they are computed.

    Dense gradients are fused and reduced. Sparse ones travel as the rows that a batch holds, so that what is exchanged grows with the
    distinct ids of a batch and not with the tables.

    Args:
        model: the model to train.
        config: the settings.
    """

    def __init__(self, model: ClickModel, config: OptimizerConfig) -> None:
        self._config = config
        self._tables = model.sparse_parameters()
        self._dense = model.dense_parameters()
        self._decayed = [parameter for parameter in self._dense if parameter.dim() > 1]
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        betas = (config.beta1, config.beta2)
        optimizers: list[torch.optim.Optimizer] = []
        if self._dense:
            optimizers.append(torch.optim.Adam(self._dense, lr=config.learning_rate, betas=betas))
        if self._tables:
            optimizers.append(torch.optim.SparseAdam(self._tables, lr=config.learning_rate, betas=betas))
        self._optimizers: list[Any] = [
            hvd.DistributedOptimizer(
                optimizer,
                named_parameters=[(names[id(p)], p) for group in optimizer.param_groups for p in group["params"]],
            )
            for optimizer in optimizers
        ]

    def step(self, loss: torch.Tensor, progress: float) -> None:
        """Backward, exchange, regularize, clip, update.

        Args:
            loss: scalar, the mean over this rank's samples. With batches of one size on all ranks the averaged gradient is that of
                the mean over the global batch.
            progress: share of the planned steps that are done, from 0 to 1.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers:
            optimizer.synchronize()
        self._regularize()
        if self._config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._dense, self._config.clip_norm)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(progress)
            with optimizer.skip_synchronize():
                optimizer.step()

    def _learning_rate(self, progress: float) -> float:
        falling = max(FINAL_SHARE, 1.0 - progress) if self._config.schedule == "linear" else 1.0
        return self._config.learning_rate * falling

    @torch.no_grad()
    def _regularize(self) -> None:
        if self._config.l2:
            for weight in self._decayed:
                if weight.grad is not None:
                    weight.grad.add_(weight, alpha=self._config.l2)
        if self._config.l2_embedding:
            for table in self._tables:
                if table.grad is not None:
                    table.grad = gradient = table.grad.coalesce()
                    rows = table.index_select(0, gradient.indices()[0])
                    gradient.values().add_(rows, alpha=self._config.l2_embedding)
