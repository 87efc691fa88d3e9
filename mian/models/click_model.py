"""What every model promises to the trainer, the scorer and the served model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import nn


class ClickModel(nn.Module, ABC):
    """A model of clicks, built from a contract and its options.

    Call it on a batch: columns by name as the contract has them. It gives logits, float32 ``(B,)``; the probability of a click is their
    sigmoid. Columns that it does not know are ignored.
    """

    @abstractmethod
    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits, float ``(B,)``, of a batch of samples."""

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
