"""One step of training: from a batch to other weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
        passes: so many parts of a batch, of one size, go forward and backward one after the other, which takes the memory of one.
    """

    def __init__(self, model: ClickModel, optimizer: Optimizer, passes: int = 1) -> None:
        self._model = model
        self._optimizer = optimizer
        self._passes = passes

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
        self._optimizer.begin()
        loss = torch.stack([self._pass(part) for part in _cut(batch, self._passes)]).sum()
        return loss, self._optimizer.step(loss, progress, stop)

    def _pass(self, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Forward and backward; what a part of the batch adds to its mean loss."""
        with record_function("forward"):
            logits = self._model(part)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, part[LABEL_COLUMN].float())  # Eq. 18
            loss = loss / self._passes
        self._optimizer.backward(loss)
        return loss.detach()


def _cut(batch: Mapping[str, torch.Tensor], parts: int) -> Iterator[dict[str, torch.Tensor]]:
    """A batch in parts of one size: views."""
    size = len(batch[LABEL_COLUMN]) // parts
    for start in range(0, parts * size, size):
        yield {name: column[start : start + size] for name, column in batch.items()}
