"""Predicted against observed click rate, over the range of predictions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from mian.metrics.validation import MetricError, as_labels, as_probabilities


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
    low, high = _wilson(clicks, counts)
    return pd.DataFrame(
        {"count": counts, "mean_predicted": predicted, "observed_rate": clicks / counts, "low": low, "high": high}
    )


def _wilson(
    clicks: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """95 % intervals of rates (Wilson 1927), by hand: SciPy's cost each training a second, for ``scipy.stats`` is slow to import."""
    rate, z = clicks / counts, ndtri(0.975)
    shrinking = 1 + z**2 / counts
    middle = (rate + z**2 / (2 * counts)) / shrinking
    half = z * np.sqrt(rate * (1 - rate) / counts + (z / (2 * counts)) ** 2) / shrinking
    return np.where(clicks == 0, 0.0, middle - half), np.where(clicks == counts, 1.0, middle + half)
