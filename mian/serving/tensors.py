"""Between encoded columns and what a model reads and gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mian.scoring.one_user_encoder import Columns


def tensors(columns: Columns) -> dict[str, torch.Tensor]:
    """Columns as tensors, which share their memory."""
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def probabilities(logits: torch.Tensor) -> npt.NDArray[np.float64]:
    """The sigmoid of a model's logits, ``(N,)``, computed in float32 whatever their type."""
    scores: npt.NDArray[np.float64] = torch.sigmoid(logits.float()).double().numpy()
    return scores
