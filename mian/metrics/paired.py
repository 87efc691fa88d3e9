"""How far metrics, and differences of two models on the same rows, would move with other users.

The rows of one user are alike, so users are what is drawn: variances are sums over users of their influence on the metric (the delta
method for clustered data; for AUC, Obuchowski 1997, Biometrics 53). They agree with a bootstrap over users, and take two sorts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from mian.metrics.validation import MetricError, UndefinedMetricError, as_groups, as_labels, as_probabilities

Floats = npt.NDArray[np.float64]
CLIP = float(np.finfo(np.float32).eps)
"""Probabilities closer to 0 or 1 than this are moved there before their logarithm is taken; models give float32."""


@dataclass(frozen=True)
class Estimate:
    """A metric of some rows, or a difference of two.

    Attributes:
        value: The metric.
        standard_error: How far it moves with other users, one standard deviation.
        users: How many users the rows are of; quantiles are those of Student's t with one degree of freedom less.
    """

    value: float
    standard_error: float
    users: int

    def quantile(self, probability: float) -> float:
        """The bound below which the true value lies with this probability; NaN where there is only one user."""
        return self.value + self.standard_error * float(stats.t.ppf(probability, self.users - 1))

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two-sided interval with this coverage, such as 0.95."""
        tail = (1.0 - confidence) / 2.0
        return self.quantile(tail), self.quantile(1.0 - tail)

    def chance_above(self, limit: float = 0.0) -> float:
        """The one-sided p-value of "not above ``limit``": small where the true value is above it."""
        if self.standard_error == 0.0 or math.isnan(self.standard_error):
            return 0.0 if self.value > limit and self.standard_error == 0.0 else 1.0
        return float(stats.t.sf((self.value - limit) / self.standard_error, self.users - 1))


def logloss_difference(labels: npt.ArrayLike, users: npt.ArrayLike, one: npt.ArrayLike, other: npt.ArrayLike) -> Estimate:
    """Logloss of one model minus that of another, on the same rows.

    Args:
        labels: 0 or 1, shape ``(N,)``.
        users: Who each row is of, ``(N,)``.
        one: Probabilities of a click, ``(N,)``.
        other: Those of the other model.

    Raises:
        MetricError: The arrays differ in length or are empty, a label is not 0 or 1, or a probability is not between 0 and 1.
    """
    y, u, p, q = _checked(labels, users, one, other)
    losses = _losses(y, p) - _losses(y, q)
    value = float(losses.mean())
    return _estimate(value, (losses - value) / len(y), u)


def auc_difference(labels: npt.ArrayLike, users: npt.ArrayLike, one: npt.ArrayLike, other: npt.ArrayLike) -> Estimate:
    """AUC of one model minus that of another, on the same rows (Obuchowski 1997, of DeLong et al. 1988); arguments as above.

    Raises:
        MetricError: See :func:`logloss_difference`.
        UndefinedMetricError: All rows have one label.
    """
    y, u, p, q = _checked(labels, users, one, other)
    if y.all() or not y.any():
        raise UndefinedMetricError("AUC is not defined where all rows have one label")
    (auc_one, influence_one), (auc_other, influence_other) = _auc(y, p), _auc(y, q)
    return _estimate(auc_one - auc_other, influence_one - influence_other, u)


def logloss_estimate(labels: npt.ArrayLike, users: npt.ArrayLike, probabilities: npt.ArrayLike) -> Estimate:
    """Logloss of one model; arguments as for :func:`logloss_difference`.

    Raises:
        MetricError: See there.
    """
    y, u, p = _checked(labels, users, probabilities)
    losses = _losses(y, p)
    value = float(losses.mean())
    return _estimate(value, (losses - value) / len(y), u)


def auc_estimate(labels: npt.ArrayLike, users: npt.ArrayLike, probabilities: npt.ArrayLike) -> Estimate:
    """AUC of one model (Obuchowski 1997); arguments as for :func:`logloss_difference`.

    Raises:
        MetricError: See there.
        UndefinedMetricError: All rows have one label.
    """
    y, u, p = _checked(labels, users, probabilities)
    if y.all() or not y.any():
        raise UndefinedMetricError("AUC is not defined where all rows have one label")
    value, influence = _auc(y, p)
    return _estimate(value, influence, u)


def share_estimate(counted: npt.ArrayLike, totals: npt.ArrayLike, users: npt.ArrayLike) -> Estimate:
    """A share of things of which each row has some, such as the unknown behaviors among all behaviors.

    Args:
        counted: How many of them each row has that count, shape ``(N,)``.
        totals: How many of them each row has, ``(N,)``.
        users: Who each row is of, ``(N,)``.

    Raises:
        MetricError: The arrays differ in length or are empty.
        UndefinedMetricError: No row has any.
    """
    part, whole = np.asarray(counted, np.float64), np.asarray(totals, np.float64)
    groups = as_groups(users, len(whole))
    if len(part) != len(whole) or not len(whole):
        raise MetricError(f"{len(part)} counts and {len(whole)} totals: as many of both are needed, and at least one")
    everything = float(whole.sum())
    if not everything:
        raise UndefinedMetricError("a share is not defined where there is nothing")
    value = float(part.sum()) / everything
    return _estimate(value, (part - value * whole) / everything, groups)


def calibration_estimate(labels: npt.ArrayLike, users: npt.ArrayLike, probabilities: npt.ArrayLike) -> Estimate:
    """Mean prediction over click rate: 1 is right on average. Arguments as for :func:`logloss_difference`.

    Raises:
        MetricError: See there.
        UndefinedMetricError: No row was clicked.
    """
    y, u, p = _checked(labels, users, probabilities)
    clicks = float(y.sum())
    if not clicks:
        raise UndefinedMetricError("calibration is not defined where no row was clicked")
    value = float(p.sum()) / clicks
    return _estimate(value, (p - value * y) / clicks, u)


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """P-values of several tests, adjusted so that the chance of any false one below a level is that level (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for place, (name, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, chance * (len(chances) - place)))
        adjusted[name] = largest
    return {name: adjusted[name] for name in chances}


def _losses(labels: npt.NDArray[np.bool_], probabilities: Floats) -> Floats:
    clipped = np.clip(probabilities, CLIP, 1.0 - CLIP)
    losses: Floats = -np.log(np.where(labels, clipped, 1.0 - clipped))
    return losses


def _auc(labels: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, Floats]:
    """The AUC, and by how much each row moves it."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    ranks = stats.rankdata(scores)
    beside = np.empty(len(scores))  # of the other label: how many lie below, those of the same score by half
    beside[labels] = ranks[labels] - stats.rankdata(scores[labels])
    beside[~labels] = positives - (ranks[~labels] - stats.rankdata(scores[~labels]))
    auc = float(beside[labels].mean()) / negatives
    influence = np.where(labels, (beside / negatives - auc) / positives, (beside / positives - auc) / negatives)
    return auc, influence


def _estimate(value: float, influence: Floats, users: npt.NDArray[np.int64]) -> Estimate:
    """Rows' influences, summed by user: their squares add up to the variance."""
    sums = np.bincount(users, weights=influence)
    count = len(sums)
    error = math.sqrt(float((sums**2).sum()) * count / (count - 1)) if count > 1 else math.nan
    return Estimate(value, error, count)


def _checked(labels: npt.ArrayLike, users: npt.ArrayLike, *columns: npt.ArrayLike) -> tuple[Any, ...]:
    y = as_labels(labels)
    return (y, as_groups(users, len(y)), *(as_probabilities(column, len(y)) for column in columns))
