"""Deep & Cross Networks, the first and the second.

Sources: Wang, Fu, Fu, Wang: Deep & Cross Network for Ad Click Predictions, ADKDD 2017 ("DCN"); Wang et al.: DCN V2: Improved Deep & Cross
Network and Practical Lessons for Web-scale Learning to Rank Systems, WWW 2021 ("DCN-V2"). Equation numbers are the papers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from mian.contract import Contract
from mian.layers import MLP, FieldVectors, MatrixCross, VectorCross, initialize
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options, Share


class DCNConfig(Options):
    """Options of :class:`DCN`."""

    embedding_dim: Count = 16
    """Width of every field's vector; MIAN's here. The paper: ``6 * size^(1/4)`` of a field's vocabulary."""
    cross_layers: Count = 6
    """Layers of the cross network; the paper's best on Criteo."""
    mlp: tuple[Count, ...] = (1024, 1024)
    """Widths of the deep network's hidden layers; the paper's best on Criteo."""
    dropout: Share = 0.0
    """Probability of dropout behind each of them. The paper found that it did not help."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's. The paper gives none."""


class DCN(ClickModel):
    """A cross network and a deep one side by side, and a linear layer over both: DCN, Eqs. 3-5.

    There is no linear part over the fields, as in the paper; DeepCTR adds one. The paper's deep network has batch normalization, which it
    does not write down in its equations and which is not here.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: DCNConfig) -> None:
        super().__init__()
        self.config = config
        self.fields = FieldVectors(contract, config.embedding_dim)
        self.cross = VectorCross(self.fields.flat_width, config.cross_layers)
        self.deep = MLP(self.fields.flat_width, config.mlp, config.dropout)
        self.logit = nn.Linear(self.fields.flat_width + self.deep.output_width, 1)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        x_0 = self.fields(batch).flatten(1)  # Eq. 2: (B, F, d) -> (B, F * d)
        logits: torch.Tensor = self.logit(torch.cat([self.cross(x_0), self.deep(x_0)], dim=1)).squeeze(1)  # Eqs. 3-5
        return logits


class DCNv2Config(Options):
    """Options of :class:`DCNv2`."""

    embedding_dim: Count = 16
    """Width of every field's vector; MIAN's here."""
    cross_layers: Count = 2
    """Layers of the cross network. The paper tunes them between 1 and 4."""
    mlp: tuple[Count, ...] = (768, 768)
    """Widths of the deep network's hidden layers. The paper tunes them."""
    structure: Literal["stacked", "parallel"] = "stacked"
    """``stacked``: the deep network reads what the cross network makes. ``parallel``: both read the fields, as in DCN. The paper: which is
    better depends on the data."""
    dropout: Share = 0.0
    """Probability of dropout behind each hidden layer. The paper mentions none."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's."""


class DCNv2(ClickModel):
    """DCN with a weight matrix in the place of each weight vector: DCN-V2, Eq. 1 and section 3.

    The paper's mixture of low-rank experts is not here. There is no linear part over the fields; DeepCTR adds one.

    Args:
        contract: says which fields there are.
        config: the options.
    """

    def __init__(self, contract: Contract, config: DCNv2Config) -> None:
        super().__init__()
        self.config = config
        self.fields = FieldVectors(contract, config.embedding_dim)
        width = self.fields.flat_width
        self.cross = MatrixCross(width, config.cross_layers)
        self.deep = MLP(width, config.mlp, config.dropout)
        self.logit = nn.Linear(self.deep.output_width + (width if config.structure == "parallel" else 0), 1)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        x_0 = self.fields(batch).flatten(1)  # (B, F, d) -> (B, F * d)
        x = self.cross(x_0)  # Eq. 1
        last = self.deep(x) if self.config.structure == "stacked" else torch.cat([x, self.deep(x_0)], dim=1)
        logits: torch.Tensor = self.logit(last).squeeze(1)
        return logits
