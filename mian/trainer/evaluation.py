"""Scores of a split, over all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mian.metrics import evaluate
from mian.models import ClickModel
from mian.stream import SampleStream
from mian.trainer.feed import beside
from mian.trainer.ranks import Ranks
from pipeline.contract.document import LABEL_COLUMN, USER_COLUMN


@dataclass(frozen=True)
class Scores:
    """Labels (int32), probabilities of a click (float64) and users (int64) of a split's rows, each of shape ``(N,)``."""

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float64]
    users: npt.NDArray[np.int64]

    def metrics(self) -> dict[str, float]:
        """See :func:`mian.metrics.evaluate`."""
        return evaluate(self.labels, self.probabilities, self.users)


def score(model: ClickModel, stream: SampleStream, batches: int = 0) -> Scores:
    """Score this rank's rows of a stream, without dropout; the model's mode is left as it was.

    Args:
        model: the model.
        stream: the split.
        batches: as many are scored on the rank that has the most; a split model takes part in those that this rank lacks.
    """
    was_training = model.training
    model.eval()
    labels, logits, users = [np.empty(0, np.int32)], [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    with torch.inference_mode():
        for batch in stream.epoch(0):
            logits.append(model(beside(model, batch)).float().cpu().numpy())
            labels.append(batch[LABEL_COLUMN].numpy().copy())
            users.append(batch[USER_COLUMN].numpy().copy())
        for _ in range(stream.steps, batches):
            model.take_part()
    model.train(was_training)
    probabilities = torch.sigmoid(torch.from_numpy(np.concatenate(logits))).double().numpy()
    return Scores(np.concatenate(labels), probabilities, np.concatenate(users))


def score_together(model: ClickModel, stream: SampleStream, ranks: Ranks) -> Scores:
    """Score a split, each rank its part; every rank gets all of it, so that metrics are those of one process."""
    mine = score(model, stream, max(ranks.gather_objects(stream.steps)) if model.is_split else 0)
    return Scores(
        ranks.gather_rows(mine.labels).astype(np.int32),
        ranks.gather_rows(mine.probabilities).astype(np.float64),
        ranks.gather_rows(mine.users).astype(np.int64),
    )
