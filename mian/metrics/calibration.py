"""Whether as many clicks were predicted as there were."""

from __future__ import annotations

import numpy.typing as npt

from mian.metrics.validation import UndefinedMetricError, as_labels, as_probabilities


def calibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean predicted probability over the observed click rate: 1 is perfect, 1.1 predicts a tenth too many clicks.

    Args:
        labels: shape ``(N,)``, 0 or 1.
        probabilities: shape ``(N,)``, of label 1.

    Raises:
        UndefinedMetricError: no rows, or no row of label 1.
        MetricError: wrong labels, NaN, probabilities outside [0, 1], lengths that differ.
    """
    clicked = as_labels(labels)
    p = as_probabilities(probabilities, len(clicked))
    if not clicked.any():
        raise UndefinedMetricError(f"calibration needs a click: all {len(clicked)} labels are 0")
    return float(p.mean() / clicked.mean())
