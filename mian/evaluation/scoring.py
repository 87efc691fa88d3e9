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
from mian.models import ClickModel
from mian.stream import SampleStream
from mian.stream.schema import Tensors


class Scores(NamedTuple):
    """Labels (int32), probabilities of a click (float32) and users (int64) of some rows, each of shape ``(N,)``."""

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    users: npt.NDArray[np.int64]


def scores(
    model: ClickModel, stream: SampleStream, batches: int = 0, change: Callable[[Tensors], Tensors] | None = None
) -> Generator[Scores, None, None]:
    """Score this rank's rows of a stream, a batch at a time, without dropout; the model's mode is left as it was.

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
                    probabilities = torch.sigmoid(model(on_device(model, batch)).float()).cpu().numpy()
                yield Scores(batch[LABEL_COLUMN].numpy(), probabilities, batch[USER_COLUMN].numpy())
        with torch.inference_mode():
            for _ in range(stream.steps, batches):
                model.join_lookup()
    finally:
        model.train(was_training)


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
    batches = max(ranks.gather_objects(stream.steps)) if model.is_sharded else 0
    with ScoredRows(ranks, folder) as rows, closing(scores(model, stream, batches)) as scored:
        for batch in scored:
            rows.add(*batch)
        return rows.evaluate()
