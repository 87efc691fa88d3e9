"""Activations of hidden layers, by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

from mian.layers.dice import Dice

Activation = Literal["relu", "prelu", "sigmoid", "dice"]


def make_activation(name: Activation, width: int) -> nn.Module:
    """The activation of a layer of this width. PReLU's slope and Dice's ``alpha`` are learned, one a column, from 0."""
    if name == "dice":
        return Dice(width)
    if name == "prelu":
        return nn.PReLU(width)
    return nn.ReLU() if name == "relu" else nn.Sigmoid()
