"""All metrics of one set of predictions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from mian.metrics.auc import auc
from mian.metrics.by_score import ScoreSums
from mian.metrics.by_user import UserSums
from mian.metrics.calibration import calibration
from mian.metrics.gauc import gauc
from mian.metrics.logloss import logloss
from mian.metrics.validation import UndefinedMetricError

_log = logging.getLogger(__name__)


def evaluate(labels: npt.ArrayLike, probabilities: npt.ArrayLike, users: npt.ArrayLike) -> dict[str, float]:
    """Every metric, by name.

    Args:
        labels: shape ``(N,)``, 0 or 1.
        probabilities: shape ``(N,)``, of label 1.
        users: shape ``(N,)``, who saw the impression.

    Returns:
        ``auc``, ``logloss``, ``gauc``, ``calibration``, and the counts ``rows`` and ``positives``. A metric that is undefined for
        these rows, such as AUC where all labels are 0, is NaN, and a warning is logged that says why.

    Raises:
        MetricError: wrong labels, NaN, probabilities outside [0, 1], lengths that differ.
    """
    metrics: dict[str, Callable[[], float]] = {
        "auc": lambda: auc(labels, probabilities),
        "logloss": lambda: logloss(labels, probabilities),
        "gauc": lambda: gauc(labels, probabilities, users),
        "calibration": lambda: calibration(labels, probabilities),
    }
    clicked = np.asarray(labels)
    return _values(metrics) | {"rows": float(len(clicked)), "positives": float(clicked.sum())}


def evaluate_sums(by_score: ScoreSums, by_user: UserSums) -> dict[str, float]:
    """The same, from sums of the same rows; ``logloss`` is that of float32 probabilities."""
    metrics = {"auc": by_score.auc, "logloss": by_score.logloss, "gauc": by_user.gauc, "calibration": by_score.calibration}
    return _values(metrics) | {"rows": float(by_score.rows), "positives": float(by_score.pairs.clicks)}


def _values(metrics: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    return {name: _value_or_nan(name, metric) for name, metric in metrics.items()}


def _value_or_nan(name: str, metric: Callable[[], float]) -> float:
    try:
        return metric()
    except UndefinedMetricError as error:
        _log.warning("%s is undefined: %s", name, error)
        return math.nan
