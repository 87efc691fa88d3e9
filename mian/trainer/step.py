"""One step of training: from a batch to other weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.autograd.profiler import record_function

from mian.models import ClickModel
from mian.trainer.optimizer import Optimizer
from pipeline.contract.document import LABEL_COLUMN


class TrainingStep:
    """Forward, loss, backward, exchange between the ranks, update.

    Args:
        model: in training mode when it is called.
        optimizer: of the model's weights.
    """

    def __init__(self, model: ClickModel, optimizer: Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer

    def __call__(self, batch: Mapping[str, torch.Tensor], progress: float, stop: bool = False) -> tuple[torch.Tensor, bool]:
        """Train on a batch.

        Args:
            batch: this rank's samples, see :meth:`mian.models.ClickModel.forward`, with their labels.
            progress: share of the planned samples that are done, from 0 to 1.
            stop: whether this rank is to stop after this step.

        Returns:
            The loss before the update, a scalar without a gradient: the mean over the batch of Eq. 18; and whether any rank is to stop.

        Raises:
            NotFiniteError: the loss or a gradient of a rank is no number; no weight has changed.
        """
        with record_function("forward"):
            logits = self._model(batch)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, batch[LABEL_COLUMN].float())  # Eq. 18
        return loss.detach(), self._optimizer.step(loss, progress, stop)
