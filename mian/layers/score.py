"""What becomes of attention scores before the softmax."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

ScoreActivation = Literal["tanh", "none", "learned_temperature"]


class Score(nn.Module):
    """The activation of an attention score, Zhang et al. 2021, Eqs. 8, 10, 13 and 15.

    The paper's tanh holds a score in [-1, 1], so over 30 behaviors no weight passes ``e / (e + 29 / e)``, 0.20.
    ``learned_temperature`` divides the tanh by a learned number that starts at 1, which is the paper; its logarithm is the parameter,
    so that it stays positive. ``none`` leaves the score as it is.

    Args:
        activation: ``tanh`` (the paper), ``none`` or ``learned_temperature``.
    """

    log_temperature: torch.Tensor | None

    def __init__(self, activation: ScoreActivation) -> None:
        super().__init__()
        self.activation = activation
        self.register_parameter("log_temperature", nn.Parameter(torch.zeros(1)) if activation == "learned_temperature" else None)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Activate scores.

        Args:
            raw: float, any shape: ``V . W + b``.

        Returns:
            Float, the same shape; float32 where they are bfloat16.
        """
        if raw.dtype == torch.bfloat16:  # a product under autocast; the softmax after this is to be taken of more digits
            raw = raw.float()
        if self.activation == "none":
            return raw
        score = torch.tanh(raw)
        return score if self.log_temperature is None else score * torch.exp(-self.log_temperature)
