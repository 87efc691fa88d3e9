"""Area under the receiver operating characteristic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mian.metrics.validation import UndefinedMetricError, as_labels, as_scores


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The probability that a random click scores above a random non-click, ties counting one half.

    With midranks ``r`` of the scores, P clicks and M non-clicks: ``(sum of r over clicks - P (P + 1) / 2) / (P M)``.

    Args:
        labels: shape ``(N,)``, 0 or 1.
        scores: shape ``(N,)``, any monotone score: logits or probabilities. Compared in float64.

    Raises:
        UndefinedMetricError: no rows, or only one class.
        MetricError: wrong labels, NaN scores, lengths that differ.
    """
    from scipy.stats import rankdata  # here, because it takes a second, and a training's ranks do without

    clicked = as_labels(labels)
    values = as_scores(scores, len(clicked))
    clicks = int(clicked.sum())
    others = len(clicked) - clicks
    if not clicks or not others:
        raise UndefinedMetricError(f"AUC needs both classes: all {len(clicked)} labels are {int(clicks > 0)}")
    ranks = np.asarray(rankdata(values, method="average"), np.float64)
    return float((ranks[clicked].sum() - clicks * (clicks + 1) / 2) / (clicks * others))
