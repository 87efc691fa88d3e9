"""One step of training: from a batch to other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch.autograd.profiler import record_function

from mian.config import Precision
from mian.contract.document import LABEL_COLUMN
from mian.execution.device_batch import DeviceBatch
from mian.layers import FieldEmbedding
from mian.models import ClickModel
from mian.optim.optimizer import Optimizer
from mian.training.cuda_graphs import StepGraphs

Losses = Callable[[Mapping[str, torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""See :meth:`mian.models.ClickModel.losses`."""


class TrainingStep:
    """Forward, loss, backward, exchange between the ranks, update.

    Args:
        model: in training mode when it is called.
        optimizer: of the model's weights.
        precision: of the model's products, see :attr:`mian.config.TrainConfig.precision`.
        compiled: whether torch.compile makes the forward and backward pass, but for the embedding's. The model itself stays as it is:
            called otherwise than here, it is not compiled.
        passes: so many parts of a batch, of one size, go forward and backward one after the other, which takes the memory of one.
        graphs: whether a GPU gets forward and backward pass in one piece, where the model and the other settings allow it.
    """

    def __init__(
        self,
        model: ClickModel,
        optimizer: Optimizer,
        precision: Precision = "fp32",
        compiled: bool = False,
        passes: int = 1,
        graphs: bool = True,
    ) -> None:
        self._model = model
        self._device = next(model.parameters()).device.type
        self._losses: Losses = _compiled(model) if compiled else model.losses
        self._rounds = precision == "bf16"
        self._optimizer = optimizer
        self._passes = passes
        recorded = graphs and self._device == "cuda" and passes == 1 and model.supports_cuda_graphs and not model.is_sharded
        self._graphs = StepGraphs(self._pass, optimizer) if recorded else None

    @property
    def bucket_shapes(self) -> bool:
        """Whether batches should have few shapes, see :func:`mian.execution.prefetch.on_device`."""
        return self._graphs is not None

    def __call__(self, batch: Mapping[str, torch.Tensor], progress: float, stop: bool = False) -> tuple[torch.Tensor, bool]:
        """Train on a batch.

        Args:
            batch: this rank's samples, see :meth:`mian.models.ClickModel.forward`, with their labels.
            progress: share of the planned samples that are done, from 0 to 1.
            stop: whether this rank is to stop after this step.

        Returns:
            The batch's mean logloss before the update, a scalar without a gradient; and whether any rank is to stop.

        Raises:
            NotFiniteError: the loss or a gradient of a rank is no number; no weight has changed.
        """
        self._optimizer.begin()
        self._share_auxiliary_terms(batch)
        if self._graphs is not None and isinstance(batch, DeviceBatch):
            losses = [self._graphs(batch)]
        else:
            losses = [self._pass(part) for part in _cut(batch, self._passes)]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return loss, self._optimizer.step(loss, progress, stop)

    def _share_auxiliary_terms(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Have the auxiliary loss of each part, here and on the other ranks, add up to the mean over the global batch."""
        if self._passes == 1 and self._optimizer.ranks.size == 1:
            return
        terms = self._model.auxiliary_terms(batch)
        if terms is not None:
            terms = terms.double()
            self._optimizer.ranks.allreduce_mean_(terms)
            self._model.use_auxiliary_terms(terms / self._passes)

    def _pass(self, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Forward and backward; what a part of the batch adds to its mean logloss."""
        with record_function("forward"):
            if self._rounds:
                with torch.autocast(self._device, dtype=torch.bfloat16):
                    logloss, loss = self._losses(part, part[LABEL_COLUMN])
            else:
                logloss, loss = self._losses(part, part[LABEL_COLUMN])
            if self._passes > 1:
                logloss, loss = logloss / self._passes, loss / self._passes
        self._optimizer.backward(loss)
        return logloss.detach()


def _cut(batch: Mapping[str, torch.Tensor], parts: int) -> Iterator[Mapping[str, torch.Tensor]]:
    """A batch in parts of one size: views."""
    if parts == 1:  # with all that was prepared for it
        yield batch
        return
    size = len(batch[LABEL_COLUMN]) // parts
    for start in range(0, parts * size, size):
        yield {name: column[start : start + size] for name, column in batch.items()}


def _compiled(model: ClickModel) -> Losses:
    """The model's losses by torch.compile, for any number of positions.

    Embedding stays torch's: how many rows a batch has is known when they are counted, and with sharded tables it asks other ranks.
    """
    for module in model.modules():
        if isinstance(module, FieldEmbedding):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
    compiled: Losses = torch.compile(model.losses, dynamic=True)
    return compiled
