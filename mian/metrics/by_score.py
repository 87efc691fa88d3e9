"""Metrics of rows that are counted by score and label, a range of scores at a time: AUC, logloss, calibration, reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mian.metrics.pairs import Counts, Pairs, pairs_won
from mian.metrics.reliability import reliability_table
from mian.metrics.validation import UndefinedMetricError

BINS = 20
_EPSILON = float(np.finfo(np.float32).eps)

Outcomes = npt.NDArray[np.uint32]


def pack_outcomes(labels: npt.NDArray[np.generic], probabilities: npt.NDArray[np.float32]) -> Outcomes:
    """Probability and label of each row in one number, which sorts by probability: its bits, and the label below them.

    Args:
        labels: 0 or 1, ``(N,)``.
        probabilities: in [0, 1], ``(N,)``; the bits of such numbers sort as they do, and the highest two are 0.
    """
    bits = (probabilities + np.float32(0)).view(np.uint32)  # -0 becomes 0
    outcomes: Outcomes = bits << np.uint32(1) | labels.astype(np.uint32)
    return outcomes


def count_labels(
    outcomes: Outcomes, counts: Counts, new_group: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], Counts, Counts]:
    """Clicks and non-clicks of each distinct score of each group.

    Args:
        outcomes: as :func:`pack_outcomes` gives them, distinct within a group and rising, ``(N,)``.
        counts: how many rows have each, ``(N,)``.
        new_group: where another group begins, ``(N,)``; the first row's is not looked at.

    Returns:
        Where the distinct scores' rows begin; and of each its clicks and its non-clicks: all int64 ``(V,)``.
    """
    new = new_group | (np.diff(outcomes >> np.uint32(1), prepend=np.uint32(0)) != 0)
    new[:1] = True
    starts = np.flatnonzero(new)
    rows = np.add.reduceat(counts, starts)
    clicks = np.add.reduceat(np.where(outcomes & np.uint32(1), counts, 0), starts)
    return starts, clicks, rows - clicks


@dataclass(frozen=True)
class ScoreSums:
    """Of the rows of a range of scores.

    Attributes:
        pairs: clicks, non-clicks and their pairs.
        loss: the sum of what :func:`mian.metrics.logloss` takes the mean of.
        bin_rows: rows of each bin of the reliability table, int64 ``(BINS,)``.
        bin_predicted: the sum of their probabilities, float64 ``(BINS,)``.
        bin_clicks: how many are clicks, int64 ``(BINS,)``.
    """

    pairs: Pairs
    loss: float
    bin_rows: Counts
    bin_predicted: npt.NDArray[np.float64]
    bin_clicks: Counts

    @classmethod
    def of(cls, outcomes: Outcomes, counts: Counts, rows_below: int, rows: int) -> ScoreSums:
        """Sums of all rows of a range of scores.

        Args:
            outcomes: as :func:`pack_outcomes` gives them, distinct and rising, ``(N,)``.
            counts: how many rows have each, int64 ``(N,)``.
            rows_below: how many rows score lower; none that is not in the range has a score that is.
            rows: how many there are in all, in this range and elsewhere.
        """
        if not len(outcomes):
            return cls(Pairs(), 0.0, np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS, np.int64))
        starts, clicks, others = count_labels(outcomes, counts, np.zeros(len(outcomes), bool))
        pairs = Pairs(int(clicks.sum()), int(others.sum()), int(pairs_won(clicks, others, np.zeros(1, np.int64))[0]))
        p = (outcomes[starts] >> np.uint32(1)).view(np.float32).astype(np.float64)
        clipped = np.clip(p, _EPSILON, 1 - _EPSILON)
        loss = -float((clicks * np.log(clipped) + others * np.log1p(-clipped)).sum())

        # The edges of `reliability` by their places among all rows: one is less than a score if it comes before that score's first row.
        edges = np.maximum(np.ceil(rows * (np.arange(1, BINS) / BINS) - 1), 0)
        both = clicks + others
        bins = np.searchsorted(edges, rows_below + np.cumsum(both) - both, side="left")
        predicted = np.bincount(bins, weights=p * both, minlength=BINS).astype(np.float64)
        return cls(pairs, loss, _sum_by_bin(bins, both), predicted, _sum_by_bin(bins, clicks))

    def __add__(self, higher: ScoreSums) -> ScoreSums:
        """These rows and those of a range of higher scores."""
        return ScoreSums(
            self.pairs + higher.pairs,
            self.loss + higher.loss,
            self.bin_rows + higher.bin_rows,
            self.bin_predicted + higher.bin_predicted,
            self.bin_clicks + higher.bin_clicks,
        )

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return self.pairs.clicks + self.pairs.others

    def auc(self) -> float:
        """See :func:`mian.metrics.auc`."""
        self._check_rows()
        if not self.pairs.both:
            raise UndefinedMetricError(f"AUC needs both classes: all {self.rows} labels are {int(self.pairs.clicks > 0)}")
        return self.pairs.auc

    def logloss(self) -> float:
        """See :func:`mian.metrics.logloss`, of float32 probabilities."""
        self._check_rows()
        return self.loss / self.rows

    def calibration(self) -> float:
        """See :func:`mian.metrics.calibration`."""
        self._check_rows()
        if not self.pairs.clicks:
            raise UndefinedMetricError(f"calibration needs a click: all {self.rows} labels are 0")
        return float(self.bin_predicted.sum()) / self.pairs.clicks

    def reliability(self) -> pd.DataFrame:
        """See :func:`mian.metrics.reliability`, of :data:`BINS` bins."""
        self._check_rows()
        some = self.bin_rows > 0
        rows = self.bin_rows[some]
        return reliability_table(rows, self.bin_predicted[some] / rows, self.bin_clicks[some])

    def _check_rows(self) -> None:
        if not self.rows:
            raise UndefinedMetricError("labels are empty: no metric is defined on no rows")


def _sum_by_bin(bins: npt.NDArray[np.intp], counts: Counts) -> Counts:
    sums = np.zeros(BINS, np.int64)
    np.add.at(sums, bins, counts)
    return sums
