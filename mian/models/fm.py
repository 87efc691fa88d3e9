"""The factorization machine of degree 2.

Source: Rendle: Factorization Machines, ICDM 2010. Equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mian.contract import Contract
from mian.layers import FieldVectors, LinearPart, initialize, pairwise
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options


class FMConfig(Options):
    """Options of :class:`FM`."""

    embedding_dim: Count = 16
    """``k``, the width of the vectors. The paper gives none; MIAN's here."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but the bias starts from; MIAN's. The paper gives none."""


class FM(ClickModel):
    """``logit = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j``, Eq. 1, over all fields.

    A history's behaviors share the weight 1 evenly, as the sets of the paper's Figure 1 do. Two differences from the paper: there are no
    interactions among the behaviors of one field, whose vector is their mean; and values of one vocabulary share their vector over
    fields, as in all models here, where the paper's fields each have their own. Weights of the linear part are each field's own.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: FMConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = LinearPart(contract)
        self.fields = FieldVectors(contract, config.embedding_dim)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        logits: torch.Tensor = self.linear(batch) + pairwise(self.fields(batch))  # Eq. 1; fields: (B, F, d)
        return logits
