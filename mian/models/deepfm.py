"""DeepFM.

Source: Guo, Tang, Ye, Li, He: DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, IJCAI 2017. Equation numbers are
the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mian.contract import Contract
from mian.layers import MLP, FieldVectors, LinearPart, initialize, pairwise
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options, Share


class DeepFMConfig(Options):
    """Options of :class:`DeepFM`."""

    embedding_dim: Count = 16
    """``k``, the width of every field's vector; MIAN's here. The paper: 10."""
    mlp: tuple[Count, ...] = (400, 400, 400)
    """Widths of the deep component's hidden layers; the paper's."""
    dropout: Share = 0.5
    """Probability of dropout behind each of them; the paper's."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's. The paper gives none."""


class DeepFM(ClickModel):
    """A factorization machine and a deep network over the same vectors: ``logit = y_FM + y_DNN``, Eqs. 1-4.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: DeepFMConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = LinearPart(contract)
        self.fields = FieldVectors(contract, config.embedding_dim)
        self.deep = MLP(self.fields.flat_width, config.mlp, config.dropout)
        self.deep_logit = nn.Linear(self.deep.output_width, 1, bias=False)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        linear = self.linear(batch)
        vectors = self.fields(batch)  # (B, F, d)
        y_fm = linear + pairwise(vectors)  # Eq. 2
        y_dnn = self.deep_logit(self.deep(vectors.flatten(1))).squeeze(1)  # Eqs. 3, 4: (B, F * d) -> (B, width) -> (B,)
        logits: torch.Tensor = y_fm + y_dnn  # Eq. 1
        return logits
