"""How often a click scores above a non-click, from counts of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Of some rows: clicks, non-clicks, and their pairs.

    Attributes:
        clicks: rows of label 1.
        others: rows of label 0.
        won: twice the pairs of a click and a non-click in which the click scores higher, and once those that tie: a whole number.
    """

    clicks: int = 0
    others: int = 0
    won: int = 0

    def __add__(self, higher: Pairs) -> Pairs:
        """These rows and others that all score higher."""
        clicks, others = self.clicks + higher.clicks, self.others + higher.others
        return Pairs(clicks, others, self.won + higher.won + 2 * higher.clicks * self.others)

    @property
    def both(self) -> bool:
        """Whether there are rows of both classes, without which there is no AUC."""
        return self.clicks > 0 and self.others > 0

    @property
    def auc(self) -> float:
        """See :func:`mian.metrics.auc`; that of the Wilcoxon-Mann-Whitney statistic (Hanley and McNeil 1982)."""
        return self.won / (2 * self.clicks * self.others)


def pairs_won(clicks: Counts, others: Counts, group_starts: npt.NDArray[np.int64]) -> Counts:
    """What :attr:`Pairs.won` is of each group.

    Args:
        clicks: rows of label 1 of each distinct score of each group, by rising score, ``(V,)``.
        others: those of label 0, ``(V,)``.
        group_starts: where each group's scores begin, ``(G,)``, from 0.

    Returns:
        int64 ``(G,)``; exact for up to 4 * 10^9 rows, all groups together.
    """
    below = np.cumsum(others) - others
    below -= np.repeat(below[group_starts], np.diff(np.append(group_starts, len(others))))
    won: Counts = np.add.reduceat(clicks * (2 * below + others), group_starts)
    return won
