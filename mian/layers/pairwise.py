"""The pairwise interactions of a factorization machine."""

from __future__ import annotations

import torch


def pairwise(vectors: torch.Tensor) -> torch.Tensor:
    """``sum_{i<j} <v_i, v_j>`` in linear time: half of the square of the sum without the sum of the squares.

    Rendle 2010, Eq. 1 and Lemma 3.1; a field's ``x_i`` is in its vector.

    Args:
        vectors: float ``(B, F, d)``.

    Returns:
        Float ``(B,)``.
    """
    return 0.5 * (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=1)
