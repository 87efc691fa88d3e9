"""Wide & Deep.

Source: Cheng et al.: Wide & Deep Learning for Recommender Systems, DLRS 2016. Equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mian.contract import Contract
from mian.layers import MLP, FieldVectors, LinearPart, initialize
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options, Share


class WideDeepConfig(Options):
    """Options of :class:`WideDeep`."""

    embedding_dim: Count = 16
    """Width of every field's vector; MIAN's here. The paper: 32."""
    mlp: tuple[Count, ...] = (1024, 512, 256)
    """Widths of the deep part's hidden layers; the paper's Figure 4."""
    dropout: Share = 0.0
    """Probability of dropout behind each of them. The paper mentions none."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's. The paper gives none."""


class WideDeep(ClickModel):
    """A linear model and a deep network, trained together: ``logit = w_wide x + w_deep a^(l_f) + b``, Eq. 3.

    The paper's wide part has products of fields that are chosen by hand for its app store; here, as in public implementations, it has the
    fields themselves. The paper trains it by FTRL and the deep part by AdaGrad, the trainer here both alike. Numbers go into the
    deep part as value times a vector, not as they are.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: WideDeepConfig) -> None:
        super().__init__()
        self.config = config
        self.wide = LinearPart(contract)
        self.fields = FieldVectors(contract, config.embedding_dim)
        self.deep = MLP(self.fields.flat_width, config.mlp, config.dropout)
        self.deep_logit = nn.Linear(self.deep.output_width, 1, bias=False)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        wide = self.wide(batch)
        a = self.deep(self.fields(batch).flatten(1))  # Eq. 2: (B, F, d) -> (B, F * d) -> (B, width)
        logits: torch.Tensor = wide + self.deep_logit(a).squeeze(1)  # Eq. 3
        return logits
