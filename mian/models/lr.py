"""Logistic regression."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mian.contract import Contract
from mian.layers import LinearPart, initialize
from mian.models.click_model import ClickModel
from mian.models.options import Deviation, Options


class LRConfig(Options):
    """Options of :class:`LR`."""

    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but the bias starts from; MIAN's."""


class LR(ClickModel):
    """``logit = w_0 + sum_i w_i x_i`` over all fields, the history as the mean of its behaviors' weights.

    A value has a weight of its own in each field, also where fields share a vocabulary.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: LRConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = LinearPart(contract)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        logits: torch.Tensor = self.linear(batch)
        return logits
