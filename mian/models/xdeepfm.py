"""xDeepFM.

Source: Lian et al.: xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems, KDD 2018. Equation numbers are
the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field as Option
from torch import nn

from mian.contract import Contract
from mian.layers import MLP, CompressedInteraction, FieldVectors, LinearPart, initialize
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options, Share


class XDeepFMConfig(Options):
    """Options of :class:`XDeepFM`."""

    embedding_dim: Count = 16
    """``D``, the width of every field's vector; MIAN's here. The paper: 10."""
    cin: tuple[Count, ...] = Option(default=(200, 200, 200), min_length=1)
    """Rows of each layer of the CIN; the paper's on Criteo."""
    cin_activation: Literal["identity", "relu"] = "identity"
    """The paper's; DeepCTR has ``relu``."""
    cin_split_half: bool = False
    """Whether half of each layer's rows goes on and the other half comes out, see :class:`mian.layers.CompressedInteraction`. The paper's
    equations do not; DeepCTR and the paper's authors' code do."""
    mlp: tuple[Count, ...] = (400, 400)
    """Widths of the deep part's hidden layers; the paper's on Criteo."""
    dropout: Share = 0.5
    """Probability of dropout behind each of them; the paper's."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's. The paper gives none."""


class XDeepFM(ClickModel):
    """A linear part, a Compressed Interaction Network and a deep network over the same vectors: the paper's section 3.3.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: XDeepFMConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = LinearPart(contract)
        self.fields = FieldVectors(contract, config.embedding_dim)
        self.cin = CompressedInteraction(self.fields.count, config.cin, config.cin_activation, config.cin_split_half)
        self.cin_logit = nn.Linear(self.cin.output_width, 1, bias=False)
        self.deep = MLP(self.fields.flat_width, config.mlp, config.dropout)
        self.deep_logit = nn.Linear(self.deep.output_width, 1, bias=False)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        linear = self.linear(batch)
        vectors = self.fields(batch)  # (B, F, d)
        p = self.cin(vectors)  # Eqs. 6-8: (B, sum of rows)
        x_dnn = self.deep(vectors.flatten(1))  # (B, F * d) -> (B, width)
        logits: torch.Tensor = linear + self.cin_logit(p).squeeze(1) + self.deep_logit(x_dnn).squeeze(1)
        return logits
