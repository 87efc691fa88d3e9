"""The Pre-LN Transformer unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mian.kernels import Dropout, Packing, attention


class PreLNTransformer(nn.Module):
    """One Transformer block, layer normalization before each sublayer: Zhang et al. 2021, Eqs. 3-5.

    The paper is silent about residual connections; the Pre-LN Transformers that it cites (its references 32 and 35) have them, so here
    ``m = x + MultiHead(LN(x))`` and ``h = m + FFN(LN(m))``, each LN with its own gamma and beta, and no LN after the block. Dropout is on
    the output of each sublayer, before it is added.

    Args:
        width: ``d``, of a position's vector.
        heads: number of heads.
        head_dim: of a head's queries, keys and values. ``W_i^Q``, ``W_i^K``, ``W_i^V`` are ``d x head_dim`` and ``W^O`` is
            ``(heads * head_dim) x d``, so that ``heads`` need not divide ``d``.
        inner_width: of the feed-forward network's hidden layer.
        dropout: probability.
    """

    def __init__(self, width: int, heads: int, head_dim: int, inner_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        # All heads' W^Q, then all heads' W^K, then all heads' W^V; Eq. 4 has no biases.
        self.query_key_value = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.attention_output = nn.Linear(heads * head_dim, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, packing: Packing) -> torch.Tensor:
        """Apply the block; a position attends to those of its sample alone.

        Args:
            x: float ``(P, d)``, the real positions of all histories.
            packing: which sample each is of.

        Returns:
            Float ``(P, d)``.
        """
        attended = attention(self.query_key_value(self.attention_norm(x)), packing, self.heads)
        m = x + self.dropout(self.attention_output(attended))  # Eqs. 3, 4
        inner = F.relu(self.inner(self.feed_forward_norm(m)))  # Eqs. 3, 5
        hidden: torch.Tensor = m + self.dropout(self.outer(inner))  # Eq. 5
        return hidden
