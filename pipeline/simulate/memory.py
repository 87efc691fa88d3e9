"""The clicks that users remember, and the interest that comes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import coefficients

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_CLICK = np.int64(-(1 << 62))
"""The time of an empty place, long before all others."""

#: 0, the weight of each rank, 0: ranks before the first and after the last weigh nothing.
_RANK_WEIGHT = np.concatenate([[0.0], 1.0 / (1.0 + np.arange(coefficients.MEMORY_CLICKS) / coefficients.RECENT_HALF_RANK), [0.0]])


@dataclass(frozen=True, eq=False)
class Recall:
    """What U users remember at one time each."""

    weight: Floats
    """(U, M), of each click in memory: 0 for one that is still to come, too old, or past the last 30."""
    pending: Ints
    """(U,), how many clicks are still to come; they lie before the others."""
    known: Ints
    """(U,), how many clicks have been."""


class ClickMemory:
    """The last M clicks of each user, the latest first, those included whose time is still to come.

    Args:
        users: number of users.
        width: M; must hold the last 30 clicks and all that can be pending.
    """

    def __init__(self, users: int, width: int) -> None:
        self.time_us = np.full((users, width), NO_CLICK)
        self.category = np.zeros((users, width), np.int64)
        self.brand = np.zeros((users, width), np.int64)

    def recall(self, time_us: Ints) -> Recall:
        """What the first U users remember: clicks strictly before ``time_us`` (U,)."""
        clicks = self.time_us[: len(time_us)]
        now = time_us[:, None]
        pending = (clicks >= now).sum(axis=1)
        rank = np.arange(clicks.shape[1]) - pending[:, None]
        age_days = (now - clicks) / coefficients.DAY_US
        weight = _RANK_WEIGHT[np.clip(rank, -1, coefficients.MEMORY_CLICKS) + 1] * np.exp(
            -age_days / coefficients.INTEREST_DECAY_DAYS
        )
        weight[age_days > coefficients.MEMORY_DAYS] = 0.0
        weight[rank < 0] = 0.0
        return Recall(weight, pending, (clicks != NO_CLICK).sum(axis=1) - pending)

    def interest(self, recall: Recall, category: Ints, brand: Ints) -> Floats:
        """What past clicks add to the logit of (U, K) items."""
        users = len(recall.weight)
        result = np.zeros(category.shape)
        for effect, remembered, shown in (
            (coefficients.CATEGORY_INTEREST, self.category[:users], category),
            (coefficients.BRAND_INTEREST, self.brand[:users], brand),
        ):
            same = remembered[:, None, :] == shown[:, :, None]  # (U, K, M)
            result -= effect * np.expm1(-np.einsum("ukm,um->uk", same, recall.weight))
        return result

    def add(self, row: Ints, time_us: Ints, category: Ints, brand: Ints) -> None:
        """Remember clicks.

        Args:
            row: (R,), distinct users.
            time_us: (R, N), ``NO_CLICK`` where there is none.
            category: (R, N)
            brand: (R, N)
        """
        times = np.concatenate([self.time_us[row], time_us], axis=1)
        latest = np.argsort(-times, axis=1, kind="stable")[:, : self.time_us.shape[1]]
        self.time_us[row] = np.take_along_axis(times, latest, axis=1)
        self.category[row] = np.take_along_axis(np.concatenate([self.category[row], category], axis=1), latest, axis=1)
        self.brand[row] = np.take_along_axis(np.concatenate([self.brand[row], brand], axis=1), latest, axis=1)
