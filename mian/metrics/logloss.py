"""Mean binary cross-entropy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import xlog1py, xlogy

from mian.metrics.validation import as_labels, as_probabilities


def logloss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean of ``-(y log p + (1 - y) log(1 - p))``, natural logarithm, summed in float64 (Zhang et al. 2021, Eq. 18).

    As in scikit-learn, p is first clipped to [eps, 1 - eps] with the machine epsilon of the dtype in which it was given, so a
    float32 sigmoid that rounds to 1 costs 15.9 where it is wrong, not infinity.

    Args:
        labels: shape ``(N,)``, 0 or 1.
        probabilities: shape ``(N,)``, of label 1.

    Raises:
        UndefinedMetricError: no rows.
        MetricError: wrong labels, NaN, probabilities outside [0, 1], lengths that differ.
    """
    clicked = as_labels(labels)
    p = as_probabilities(probabilities, len(clicked))
    given = np.asarray(probabilities).dtype
    epsilon = float(np.finfo(given if given.kind == "f" else np.float64).eps)
    p = np.clip(p, epsilon, 1 - epsilon)
    return float(-(xlogy(clicked, p) + xlog1py(~clicked, -p)).mean())
