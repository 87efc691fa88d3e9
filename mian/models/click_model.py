"""What every model promises to the trainer, the scorer and the served model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import nn


class ClickModel(nn.Module, ABC):
    """A model of clicks, built from a contract and its options.

    Call it on a batch: columns by name as the contract has them. It gives logits, float32 ``(B,)``; the probability of a click is their
    sigmoid. Columns that it does not know are ignored.
    """

    def __init__(self) -> None:
        """Start with samples that were not thinned."""
        super().__init__()
        self.logit_shift: torch.Tensor
        self.register_buffer("logit_shift", torch.zeros(()))

    def calibrate(self, negatives_kept: float) -> None:
        """Say that the model learns from samples of which only a share of the negatives was kept.

        That multiplies the odds of a click by 1 / share, so the log of the share is added to the logits wherever the model does not
        learn (King and Zeng 2001, section 4.1; He et al. 2014, section 6.3).

        Args:
            negatives_kept: the share, greater than 0 and at most 1.
        """
        self.logit_shift.fill_(math.log(negatives_kept))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits, float ``(B,)``, of a batch of samples; calibrated unless in training mode."""
        logits = self.logits(batch)
        return logits if self.training else logits + self.logit_shift

    @abstractmethod
    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits, float ``(B,)``, as the samples of the training would have them."""

    def explain(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Attention weights by name, each with B rows; nothing where a model has none."""
        return {}

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradients are sparse tensors: the embedding tables, unless the model was built with ``sparse`` off."""
        tables = [module for module in self.modules() if isinstance(module, nn.Embedding) and module.sparse]
        return [parameter for table in tables for parameter in table.parameters()]

    def dense_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        sparse = {id(parameter) for parameter in self.sparse_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in sparse]
