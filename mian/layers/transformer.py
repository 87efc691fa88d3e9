"""The Pre-LN Transformer unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


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
        self.head_dim = head_dim
        self.attention_norm = nn.LayerNorm(width)
        # All heads' W^Q, then all heads' W^K, then all heads' W^V; Eq. 4 has no biases.
        self.query_key_value = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.attention_output = nn.Linear(heads * head_dim, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Apply the block.

        Args:
            x: float ``(B, T, d)``.
            mask: bool ``(B, T)``, true where a position may be attended to. At least one in every row, or that row is NaN.

        Returns:
            Float ``(B, T, d)``. What stands at masked positions means nothing, and no other position depends on it.
        """
        m = x + self.dropout(self._multi_head(self.attention_norm(x), mask))  # Eqs. 3, 4
        inner = F.relu(self.inner(self.feed_forward_norm(m)))  # Eqs. 3, 5
        hidden: torch.Tensor = m + self.dropout(self.outer(inner))  # Eq. 5
        return hidden

    def _multi_head(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Multi-head self-attention, Eq. 4, each head scaled by ``1 / sqrt(head_dim)`` as in the Transformer it refers to."""
        B, T, _ = x.shape
        projected = self.query_key_value(x).view(B, T, 3, self.heads, self.head_dim)
        query, key, value = projected.permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        joined = attended.transpose(1, 2).reshape(B, T, self.heads * self.head_dim)
        output: torch.Tensor = self.attention_output(joined)
        return output
