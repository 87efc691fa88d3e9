"""How far a difference of AUC would move with other users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 500


def difference_of_auc(
    labels: npt.NDArray[np.int32],
    users: npt.NDArray[np.int64],
    probabilities: Mapping[str, Sequence[npt.NDArray[np.float32]]],
    against: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of AUC minus that of one variant, each the mean over seeds: percentiles of a bootstrap over users.

    Users and not rows are drawn, with replacement, because the rows of one user are alike (Field and Welsh 2007, the cluster bootstrap).

    Args:
        labels: shape ``(N,)``, 0 or 1.
        users: who each row is of, shape ``(N,)``.
        probabilities: of each variant, an array ``(N,)`` a seed.
        against: the variant that is taken away.
        resamples: how often users are drawn.
        seed: of the draws.

    Returns:
        Lower and upper bound by variant.
    """
    _, row_users = np.unique(users, return_inverse=True)
    count = int(row_users.max()) + 1
    generator = np.random.default_rng(seed)
    draws = [generator.multinomial(count, np.full(count, 1.0 / count)) for _ in range(resamples)]
    means = {
        variant: np.mean([_aucs(labels, row_users, p, draws) for p in arrays], axis=0)
        for variant, arrays in probabilities.items()
    }
    bounds = {variant: np.nanquantile(mean - means[against], [0.025, 0.975]) for variant, mean in means.items()}
    return {variant: (float(low), float(high)) for variant, (low, high) in bounds.items()}


def _aucs(
    labels: npt.NDArray[np.int32],
    row_users: npt.NDArray[np.intp],
    scores: npt.NDArray[np.float32],
    draws: Sequence[npt.NDArray[np.int64]],
) -> npt.NDArray[np.float64]:
    """AUC of rows that count as often as their user was drawn; NaN where one class is missing."""
    order = np.argsort(scores, kind="stable")
    clicked, row_users = labels[order].astype(np.float64), row_users[order]
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.float32(-1.0)))  # of runs of one score
    found = np.empty(len(draws))
    for number, drawn in enumerate(draws):
        weights = drawn[row_users].astype(np.float64)
        clicks = np.add.reduceat(weights * clicked, starts)
        others = np.add.reduceat(weights * (1.0 - clicked), starts)
        below = np.cumsum(others) - others
        pairs = clicks.sum() * others.sum()
        found[number] = (clicks * (below + others / 2.0)).sum() / pairs if pairs else np.nan
    return found
