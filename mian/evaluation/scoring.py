"""Scores of a split, and its metrics over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mian.contract.document import LABEL_COLUMN, USER_COLUMN
from mian.distributed.collectives import Ranks
from mian.evaluation.distributed_metrics import Evaluation, ScoredRows
from mian.execution.prefetch import on_device
from mian.models import UNCALIBRATED, ClickModel
from mian.stream import SampleStream
from mian.stream.schema import Tensors


class Scores(NamedTuple):
    """Labels (int32), probabilities of a click (float32) and users (int64) of some rows, each of shape ``(N,)``."""

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    users: npt.NDArray[np.int64]


class Logits(NamedTuple):
    """Labels (int32), logits (float32, on the model's device) and users (int64) of some rows, each of shape ``(N,)``."""

    labels: npt.NDArray[np.int32]
    logits: torch.Tensor
    users: npt.NDArray[np.int64]


def logits(
    model: ClickModel, stream: SampleStream, batches: int = 0, change: Callable[[Tensors], Tensors] | None = None
) -> Generator[Logits, None, None]:
    """The logits of this rank's rows of a stream, a batch at a time, without dropout; the model's mode is left as it was.

    Args:
        model: the model.
        stream: the split.
        batches: as many are scored on the rank that has the most; a split model takes part in those that this rank lacks.
        change: what is done to each batch before it is scored; nothing if not given.
    """
    was_training = model.training
    model.eval()
    try:
        with closing(stream.epoch(0)) as samples:
            for drawn in samples:
                batch = drawn if change is None else change(drawn)
                with torch.inference_mode():
                    found = model(on_device(model, batch)).float()
                yield Logits(batch[LABEL_COLUMN].numpy(), found, batch[USER_COLUMN].numpy())
        with torch.inference_mode():
            for _ in range(stream.steps, batches):
                model.join_lookup()
    finally:
        model.train(was_training)


def scores(
    model: ClickModel, stream: SampleStream, batches: int = 0, change: Callable[[Tensors], Tensors] | None = None
) -> Generator[Scores, None, None]:
    """The probabilities of this rank's rows of a stream; arguments as for :func:`logits`."""
    with closing(logits(model, stream, batches, change)) as found:
        for labels, batch_logits, users in found:
            yield Scores(labels, _sigmoid(batch_logits), users)


def batches_of_all(model: ClickModel, stream: SampleStream, ranks: Ranks) -> int:
    """What :func:`logits` takes as ``batches``; all ranks call this."""
    return max(ranks.gather_objects(stream.steps)) if model.is_sharded else 0


def evaluate_split(model: ClickModel, stream: SampleStream, ranks: Ranks, folder: Path) -> Evaluation:
    """Score a split, each rank its part; every rank has the metrics of all of it then.

    Args:
        model: the model.
        stream: the split, of this rank.
        ranks: who takes part.
        folder: where scores go that memory has no room for.

    Raises:
        NotANumberError: scores are NaN; on all ranks.
        SpillError: the folder has no room; on the rank whose it is.
        StreamError: samples cannot be read.
    """
    batches = batches_of_all(model, stream, ranks)
    with ScoredRows(ranks, folder) as rows, closing(scores(model, stream, batches)) as scored:
        for batch in scored:
            rows.add(*batch)
        return rows.evaluate()


def evaluate_before_and_after(
    model: ClickModel, stream: SampleStream, ranks: Ranks, folder: Path
) -> tuple[Evaluation, Evaluation]:
    """As :func:`evaluate_split`, of a calibrated model: of the rows' probabilities before the calibration, and of the model's own."""
    batches = batches_of_all(model, stream, ranks)
    scale, offset = model.calibration
    with (
        ScoredRows(ranks, folder) as before,
        ScoredRows(ranks, folder) as after,
        model.calibrated_by(*UNCALIBRATED.values()),
        closing(logits(model, stream, batches)) as found,
    ):
        for labels, batch_logits, users in found:
            before.add(labels, _sigmoid(batch_logits), users)
            after.add(labels, _sigmoid(scale * batch_logits + offset), users)  # as the model computes it
        return before.evaluate(), after.evaluate()


def _sigmoid(values: torch.Tensor) -> npt.NDArray[np.float32]:
    probabilities: npt.NDArray[np.float32] = torch.sigmoid(values).cpu().numpy()
    return probabilities
