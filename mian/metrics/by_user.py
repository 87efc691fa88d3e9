"""gAUC of rows that are counted by user, score and label, a range of users and scores at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mian.metrics.by_score import Outcomes, count_labels
from mian.metrics.pairs import Counts, Pairs, pairs_won
from mian.metrics.validation import UndefinedMetricError


@dataclass(frozen=True)
class UserSums:
    """What gAUC needs of the rows of a range of users.

    These sums are a monoid: ``+`` joins the sums of two neighboring ranges, it is associative, and ``UserSums()`` is its neutral element.
    So ranges can be counted on different ranks, and joined in their order. A range may begin and end within a user. Such a user's AUC is
    not known yet, so the first and the last user are kept apart, as counts of pairs, until the neighboring range completes them.

    Attributes:
        users: how many lie between the first and the last.
        rows: rows of those of them that have both classes.
        weighted: the sum of their AUCs, each times the user's rows.
        ends: the first and the last user and what they have here; one where they are the same, none where there are no rows.
    """

    users: int = 0
    rows: int = 0
    weighted: float = 0.0
    ends: tuple[tuple[int, Pairs], ...] = ()

    @classmethod
    def of(cls, users: npt.NDArray[np.int64], outcomes: Outcomes, counts: Counts) -> UserSums:
        """Sums of all rows of a range.

        Args:
            users: rising, ``(N,)``.
            outcomes: as :func:`mian.metrics.by_score.pack_outcomes` gives them, rising within a user and each once, ``(N,)``.
            counts: how many rows have each user and outcome, int64 ``(N,)``.
        """
        if not len(users):
            return cls()
        starts, clicks, others = count_labels(outcomes, counts, np.diff(users, prepend=users[:1]) != 0)
        score_users = users[starts]
        group_starts = np.append(0, np.flatnonzero(np.diff(score_users)) + 1)
        won = pairs_won(clicks, others, group_starts)
        clicks, others = np.add.reduceat(clicks, group_starts), np.add.reduceat(others, group_starts)
        ends = tuple(
            (int(score_users[group_starts[place]]), Pairs(int(clicks[place]), int(others[place]), int(won[place])))
            for place in sorted({0, len(group_starts) - 1})
        )
        clicks, others, won = clicks[1:-1], others[1:-1], won[1:-1]
        both = (clicks > 0) & (others > 0)
        rows, areas = (clicks + others)[both], won[both] / (2 * clicks[both] * others[both])
        return cls(len(clicks), int(rows.sum()), float((areas * rows).sum()), ends)

    def __add__(self, later: UserSums) -> UserSums:
        """These rows and those of the range that follows: of later users, or of this one's last with higher scores."""
        ends = list(self.ends)
        for user, pairs in later.ends:
            if ends and ends[-1][0] == user:
                ends[-1] = user, ends[-1][1] + pairs
            else:
                ends.append((user, pairs))
        both = UserSums(self.users + later.users, self.rows + later.rows, self.weighted + later.weighted)
        return both._with_complete_users([pairs for _, pairs in ends[1:-1]], tuple(ends[:1] + ends[1:][-1:]))

    def gauc(self) -> float:
        """See :func:`mian.metrics.gauc`.

        Raises:
            UndefinedMetricError: no rows, or no user with both classes.
        """
        if not self.ends:
            raise UndefinedMetricError("labels are empty: no metric is defined on no rows")
        every = self._with_complete_users([pairs for _, pairs in self.ends], ())
        if not every.rows:
            raise UndefinedMetricError(f"gAUC needs a user with both classes: none of {every.users} users has")
        return every.weighted / every.rows

    def _with_complete_users(self, users: list[Pairs], ends: tuple[tuple[int, Pairs], ...]) -> UserSums:
        """With users more, of which all rows are known."""
        rows = [(pairs.clicks + pairs.others, pairs.auc) for pairs in users if pairs.both]
        return UserSums(
            self.users + len(users),
            self.rows + sum(count for count, _ in rows),
            self.weighted + sum(count * area for count, area in rows),
            ends,
        )
