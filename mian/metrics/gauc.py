"""AUC within each user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mian.metrics.validation import UndefinedMetricError, as_groups, as_labels, as_scores


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> float:
    """Mean over users of the user's own AUC, weighted by the user's impressions (Zhou et al. 2018, Deep Interest Network).

    ``sum(n_u AUC_u) / sum(n_u)``, with n_u the impressions of user u and AUC_u as in :func:`mian.metrics.auc`. Users whose labels
    are all 0 or all 1 have no AUC and are left out of both sums.

    Args:
        labels: shape ``(N,)``, 0 or 1.
        scores: shape ``(N,)``, any monotone score.
        users: shape ``(N,)``, who saw the impression; of any type that sorts.

    Raises:
        UndefinedMetricError: no rows, or no user with both classes.
        MetricError: wrong labels, NaN scores, lengths that differ.
    """
    clicked = as_labels(labels)
    values = as_scores(scores, len(clicked))
    groups = as_groups(users, len(clicked))

    order = np.lexsort((values, groups))
    clicked, values, groups = clicked[order], values[order], groups[order]
    impressions = np.bincount(groups)  # (U,)
    clicks = np.bincount(groups, weights=clicked)
    others = impressions - clicks
    both = (clicks > 0) & (others > 0)
    if not both.any():
        raise UndefinedMetricError(f"gAUC needs a user with both classes: none of {len(impressions)} users has")

    rank_sums = np.bincount(groups, weights=_midranks_within(groups, values) * clicked)
    areas = (rank_sums[both] - clicks[both] * (clicks[both] + 1) / 2) / (clicks[both] * others[both])
    return float(np.average(areas, weights=impressions[both]))


def _midranks_within(groups: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Midranks from 1 of each value within its group; both of shape ``(N,)``, sorted by group, then by value."""
    new_group = np.diff(groups, prepend=-1) != 0
    new_value = new_group.copy()
    new_value[1:] |= values[1:] != values[:-1]
    group_start = np.flatnonzero(new_group)  # (U,)
    run_start = np.flatnonzero(new_value)  # (R,), a run is a group's rows of one value
    run_end = np.append(run_start[1:], len(values))
    run = np.cumsum(new_value) - 1  # (N,)
    middle = (run_start + 1 + run_end) / 2  # the mean of the ranks run_start + 1 ... run_end
    ranks: npt.NDArray[np.float64] = middle[run] - group_start[groups]
    return ranks
