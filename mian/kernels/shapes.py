"""What the compiled operators give, but for the numbers: torch.compile asks for it while it traces a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


def register() -> None:
    """Tell torch, once they are loaded, of those that a model's layers call."""
    for name, like in LIKE.items():
        torch.library.register_fake(f"mian::{name}", like)


def _attention(
    query_key_value: torch.Tensor, offsets: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    P, width = query_key_value.shape
    head_values = query_key_value.new_empty(P, heads)
    return query_key_value.new_empty(P, width // 3), head_values, torch.empty_like(head_values)


def _attention_backward(
    grad_output: torch.Tensor,
    query_key_value: torch.Tensor,
    offsets: torch.Tensor,
    output: torch.Tensor,
    tops: torch.Tensor,
    inverses: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    return torch.empty_like(query_key_value)


def _softmax(scores: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(scores)


def _softmax_backward(grad_weights: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(weights)


def _pool(scores: torch.Tensor, vectors: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = offsets.shape[0] - 1  # len() would make a constant of it
    return torch.empty_like(scores), vectors.new_empty(groups, vectors.shape[1])


def _pool_backward(
    grad_sums: torch.Tensor, weights: torch.Tensor, vectors: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(weights), torch.empty_like(vectors)


def _recurrence(x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], recurrent.shape[1])


def _recurrence_backward(
    grad_states: torch.Tensor,
    x: torch.Tensor,
    attention: torch.Tensor,
    recurrent: torch.Tensor,
    offsets: torch.Tensor,
    states: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(attention), torch.empty_like(x), torch.empty_like(states)


#: By operator.
LIKE: Mapping[str, Callable[..., Any]] = {
    "attention": _attention,
    "attention_backward": _attention_backward,
    "softmax": _softmax,
    "softmax_backward": _softmax_backward,
    "pool": _pool,
    "pool_backward": _pool_backward,
    "recurrence": _recurrence,
    "recurrence_backward": _recurrence_backward,
}
