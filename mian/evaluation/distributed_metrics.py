"""The metrics of rows that the ranks have scored, exact, however many they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from mian.distributed.collectives import Ranks
from mian.evaluation.external_sort import Key, Records, SortedRows, merge_counted
from mian.metrics import MetricError, ScoreSums, UserSums, evaluate_sums, pack_outcomes

CAPACITY = 1 << 21
"""So many rows are in memory on a rank, and so many of all ranks' travel to one at a time: 100 to 200 MB."""

Sums = TypeVar("Sums", ScoreSums, UserSums)

_BY_SCORE = np.dtype([("outcome", "<u4")])
_BY_USER = np.dtype([("user", "<i8"), ("outcome", "<u4")])


class NotANumberError(MetricError):
    """Scores are NaN on some rank."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a split; the same on all ranks.

    Attributes:
        metrics: see :func:`mian.metrics.evaluate`.
    """

    metrics: dict[str, float]
    _by_score: ScoreSums

    def reliability(self) -> pd.DataFrame:
        """See :func:`mian.metrics.reliability`."""
        return self._by_score.reliability()


class ScoredRows:
    """Collects the scored rows of this rank, and computes metrics over the rows of all ranks.

    This is a distributed sample sort (Shi and Schaeffer 1992, Parallel Sorting by Regular Sampling) in bounded memory:

    1. Each rank sorts its rows, once by score and once by user. Sorted runs that do not fit in memory go to the disk.
    2. The ranks take every n-th row of each run, and choose from these samples where to cut. No part has more rows than a rank may hold.
       Equal rows are one row with a count.
    3. Each part goes to one rank, which adds it up. The sums of all parts give the metrics.

    Clicks, non-clicks and their pairs are whole numbers, so AUC is the same to the last bit on any number of ranks. Sums of losses, of
    probabilities and of users' AUCs are the same except for rounding.

    Args:
        ranks: the ranks that take part.
        folder: where rows are written that do not fit in memory.
        capacity: how many rows a rank may hold in memory.

    Example:
        >>> with ScoredRows(ranks, Path("models")) as rows:
        ...     rows.add(labels, probabilities, users)
        ...     auc = rows.evaluate().metrics["auc"]
    """

    def __init__(self, ranks: Ranks, folder: Path, capacity: int = CAPACITY) -> None:
        self._ranks = ranks
        self._capacity = capacity
        self._tables = SortedRows(_BY_SCORE, capacity, folder), SortedRows(_BY_USER, capacity, folder)
        self._seen = np.zeros(4, np.int64)  # rows; of them, with wrong labels, with NaN, with what is no probability

    def __enter__(self) -> ScoredRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for table in self._tables:
            table.close()

    def add(self, labels: npt.NDArray[np.generic], probabilities: npt.NDArray[np.float32], users: npt.NDArray[np.int64]) -> None:
        """Take rows in.

        Args:
            labels: 0 or 1, ``(N,)``.
            probabilities: of label 1, float32 ``(N,)``.
            users: who saw the impression, int64 ``(N,)``.

        Raises:
            MetricError: lengths or types are others. Wrong values are told by :meth:`evaluate`, on all ranks.
            SpillError: the folder has no room.
        """
        if not labels.shape == probabilities.shape == users.shape == (len(labels),):
            raise MetricError(f"rows must be of shape (N,): {labels.shape}, {probabilities.shape}, {users.shape}")
        if probabilities.dtype != np.float32 or users.dtype != np.int64:
            raise MetricError(f"probabilities must be float32, users int64: {probabilities.dtype}, {users.dtype}")
        wrong_labels, nan = ~np.isin(labels, (0, 1)), np.isnan(probabilities)
        outside = (probabilities < 0) | (probabilities > 1)
        self._seen += [len(labels), wrong_labels.sum(), nan.sum(), outside.sum()]
        good = ~(wrong_labels | nan | outside)
        rows = np.empty(int(good.sum()), _BY_USER)
        rows["user"], rows["outcome"] = users[good], pack_outcomes(labels[good], probabilities[good])
        by_score, by_user = self._tables
        by_score.add(rows["outcome"].astype(_BY_SCORE))
        by_user.add(rows)

    def evaluate(self) -> Evaluation:
        """The metrics of all ranks' rows; all ranks must call it, once, and have the same then.

        Raises:
            NotANumberError: scores are NaN, on whichever rank.
            MetricError: labels other than 0 and 1, or numbers that are no probabilities.
            SpillError: the disk fails; on the rank whose it is.
        """
        runs = [table.finish() for table in self._tables]  # as many of each
        told = self._ranks.gather_objects((self._seen, runs[0]))
        rows = _check(np.sum([seen for seen, _ in told], axis=0))
        keys = self._cuts(rows, sum(count for _, count in told))
        counts, _ = (table.cut(table_keys) for table, table_keys in zip(self._tables, keys, strict=True))
        if keys[0]:
            counts = np.sum(self._ranks.gather_objects(counts), axis=0).tolist()
        scores, users = self._own_parts(keys, [sum(counts[:part]) for part in range(len(counts))], rows)
        everyones = self._ranks.gather_objects((scores, users))
        by_score, by_user = _in_order([scores for scores, _ in everyones]), _in_order([users for _, users in everyones])
        return Evaluation(evaluate_sums(by_score, by_user), by_score)

    def _own_parts(self, keys: list[list[Key]], below: list[int], rows: int) -> tuple[dict[int, ScoreSums], dict[int, UserSums]]:
        """Send all parts to where they are added up, and add up those that come here.

        Args:
            keys: where the tables are cut.
            below: how many rows score lower than those of each part.
            rows: how many there are.

        Returns:
            The sums of this rank's parts, by the parts' numbers.
        """
        parts = [(table, part) for table, table_keys in enumerate(keys) for part in range(len(table_keys) + 1)]
        scores, users = {}, {}
        for first in range(0, len(parts), self._ranks.size):
            mine: tuple[int, int, Records] | None = None
            for owner, (table, part) in enumerate(parts[first : first + self._ranks.size]):
                found = self._ranks.gather_to(owner, self._tables[table].part(part))
                if owner == self._ranks.rank:
                    mine = table, part, found
            if mine is None:
                continue
            table, part, found = mine  # all ranks have theirs now, and add them up at the same time
            if table == 0:
                found = merge_counted([found], _BY_SCORE)
                scores[part] = ScoreSums.of(found["outcome"], found["count"], below[part], rows)
            else:
                found = merge_counted([found], _BY_USER)
                users[part] = UserSums.of(found["user"], found["outcome"], found["count"])
        return scores, users

    def _cuts(self, rows: int, runs: int) -> list[list[Key]]:
        """Where each table is to be cut; rows of one score, and of one user and score, stay together.

        With a sample of every ``stride`` rows of a run, there are at most ``stride - 1`` rows more of each run between two places
        than the samples between them stand for.
        """
        if rows <= self._capacity:
            return [[], []]
        stride = 1 + self._capacity // (2 * runs)
        every = max(1, self._capacity // (2 * stride))
        rank_samples = self._ranks.gather_objects([table.samples(stride) for table in self._tables])
        keys = []
        for samples in (np.concatenate(table_samples) for table_samples in zip(*rank_samples, strict=True)):
            samples["outcome"] &= ~np.uint32(1)
            chosen = np.sort(samples)[every::every]
            keys.append(sorted(set(chosen.tolist())))
        return keys


def _check(seen: npt.NDArray[np.int64]) -> int:
    """How many rows there are, of which none may be wrong; see ``ScoredRows._seen``."""
    rows, wrong_labels, nan, outside = seen.tolist()
    if wrong_labels:
        raise MetricError(f"labels must be 0 or 1: {wrong_labels} of {rows} rows have others")
    if nan:
        raise NotANumberError(f"scores hold NaN in {nan} of {rows} rows")
    if outside:
        raise MetricError(f"probabilities must be in [0, 1]: {outside} of {rows} rows have others")
    return int(rows)


def _in_order(rank_parts: list[dict[int, Sums]]) -> Sums:
    """The sum of parts that ranks have, by their numbers."""
    parts = {number: part for parts_of_rank in rank_parts for number, part in parts_of_rank.items()}
    return reduce(add, (parts[number] for number in range(len(parts))))
