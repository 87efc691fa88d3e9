"""The Transformer unit."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from mian.kernels import Dropout, JaggedLayout, attention

LayerNorms = Literal["pre_ln", "post_ln"]


class Transformer(nn.Module):
    """One Transformer block; with ``pre_ln``, layer normalization before each sublayer: Zhang et al. 2021, Eqs. 3-5.

    The paper is silent about residual connections; the Pre-LN Transformers that it cites (its references 32 and 35) have them, so here
    ``m = x + MultiHead(LN(x))`` and ``h = m + FFN(LN(m))``, each LN with its own gamma and beta, and no LN after the block. Dropout is on
    the output of each sublayer, before it is added.

    ``post_ln`` is the original block, of the paper's Table 4: ``m = LN(x + MultiHead(x))`` and ``h = LN(m + FFN(m))`` (Vaswani et al.,
    NIPS 2017, section 3.1). Both have the same parameters.

    Args:
        width: ``d``, of a position's vector.
        heads: number of heads.
        head_dim: of a head's queries, keys and values. ``W_i^Q``, ``W_i^K``, ``W_i^V`` are ``d x head_dim`` and ``W^O`` is
            ``(heads * head_dim) x d``, so that ``heads`` need not divide ``d``.
        inner_width: of the feed-forward network's hidden layer.
        dropout: the probability that an entry is dropped.
        norms: where layer normalization is: ``pre_ln``, before each sublayer, or ``post_ln``, after it.
    """

    def __init__(
        self, width: int, heads: int, head_dim: int, inner_width: int, dropout: float, norms: LayerNorms = "pre_ln"
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norms = norms
        self.attention_norm = nn.LayerNorm(width)
        # All heads' W^Q, then all heads' W^K, then all heads' W^V; Eq. 4 has no biases.
        self.query_key_value = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.attention_output = nn.Linear(heads * head_dim, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """Apply the block; a position attends to those of its sample alone.

        Args:
            x: float ``(P, d)``, the real positions of all histories.
            layout: which sample each is of.

        Returns:
            Float ``(P, d)``.
        """
        if self.norms == "post_ln":
            m = self.attention_norm(x + self._multi_head(x, layout))
            after: torch.Tensor = self.feed_forward_norm(m + self._feed_forward(m))
            return after
        m = x + self._multi_head(self.attention_norm(x), layout)  # Eqs. 3, 4
        return m + self._feed_forward(self.feed_forward_norm(m))  # Eqs. 3, 5

    def _multi_head(self, x: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        attended = attention(self.query_key_value(x), layout, self.heads)
        output: torch.Tensor = self.dropout(self.attention_output(attended))
        return output

    def _feed_forward(self, m: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.dropout(self.outer(F.relu(self.inner(m))))
        return output
