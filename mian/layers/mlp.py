"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mian.kernels import Dropout
from mian.layers.activations import Activation, make_activation


class MLP(nn.Sequential):
    """Hidden layers ``Relu(W_l R_{l-1} + b_l)``, each followed by dropout: Zhang et al. 2021, Eq. 16.

    Float ``(B, width)`` to float ``(B, output_width)``.

    Args:
        width: of the input.
        hidden: the layers' widths; empty for none, which leaves the input as it is.
        dropout: probability; the paper gives 0.2 and not where.
        activation: what stands in ReLU's place.
    """

    def __init__(self, width: int, hidden: Sequence[int], dropout: float, activation: Activation = "relu") -> None:
        layers: list[nn.Module] = []
        for before, after in zip([width, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, after), make_activation(activation, after), Dropout(dropout)]
        super().__init__(*layers)
        self.output_width = hidden[-1] if hidden else width
