"""Predicted against observed click rate, over the range of predictions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from mian.metrics.checks import MetricError, as_labels, as_probabilities


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 20) -> pd.DataFrame:
    """Group rows by predicted probability into bins of equal mass, and compare prediction with outcome in each.

    Equal probabilities share a bin, so the table does not depend on the order of rows; where many are equal, bins are fewer and
    of unequal mass.

    Args:
        labels: shape ``(N,)``, 0 or 1.
        probabilities: shape ``(N,)``, of label 1.
        bins: how many bins at most.

    Returns:
        A row a bin, by rising probability: ``count``, ``mean_predicted``, ``observed_rate``, and ``low`` and ``high``, the 95 %
        Wilson interval of the observed rate. The interval takes rows as independent, which one user's impressions are not.

    Raises:
        UndefinedMetricError: no rows.
        MetricError: wrong labels, NaN, probabilities outside [0, 1], lengths that differ, fewer than one bin.
    """
    if bins < 1:
        raise MetricError(f"reliability needs at least one bin, got {bins}")
    clicked = as_labels(labels)
    p = as_probabilities(probabilities, len(clicked))
    edges = np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf")  # an edge is a value of p, the last of its bin
    rows = pd.DataFrame({"bin": np.searchsorted(edges, p, side="left"), "p": p, "clicks": clicked})
    table = rows.groupby("bin").agg(count=("p", "size"), predicted=("p", "mean"), clicks=("clicks", "sum"))
    return reliability_table(*(table[name].to_numpy() for name in ("count", "predicted", "clicks")))


def reliability_table(
    counts: npt.NDArray[np.int64], predicted: npt.NDArray[np.float64], clicks: npt.NDArray[np.int64]
) -> pd.DataFrame:
    """The table of :func:`reliability`, from each bin's rows, mean probability and clicks, ``(bins,)``, none without rows."""
    from scipy.stats import binomtest  # here, because it takes a second, and a training's other ranks do without

    intervals = [
        binomtest(int(hits), int(count)).proportion_ci(confidence_level=0.95, method="wilson")
        for hits, count in zip(clicks, counts, strict=True)
    ]
    return pd.DataFrame(
        {
            "count": counts,
            "mean_predicted": predicted,
            "observed_rate": clicks / counts,
            "low": [float(interval.low) for interval in intervals],
            "high": [float(interval.high) for interval in intervals],
        }
    )
