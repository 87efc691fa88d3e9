"""How parameters start."""

from __future__ import annotations

import torch
from torch import nn

from mian.layers.embedding import EmbeddingTable


@torch.no_grad()
def initialize(module: nn.Module, std: float) -> None:
    """Draw every matrix of a module from a normal of deviation ``std`` cut off at two deviations; set every bias to 0.

    Zhang et al. 2021, section 4.3: truncated normal, 0.02. The paper says neither where it is cut (two deviations is TensorFlow's truncated
    normal) nor how biases and layer normalization start: 0, and gamma 1 and beta 0. Every parameter of one dimension counts as a bias.
    Rows of padding in an embedding table are 0.

    Args:
        module: all its parameters are overwritten, those of its children too.
        std: the deviation before the cut.
    """
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            child.reset_parameters()
            continue
        if isinstance(child, EmbeddingTable):
            child.draw(std)
            continue
        for parameter in child.parameters(recurse=False):
            if parameter.ndim >= 2:
                nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
            else:
                nn.init.zeros_(parameter)
