"""How far the columns of a split lie from the training days, and how far the training days lie from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mian.contract.stability import stability_index
from pipeline.encoding.statistics import shares

#: Above it a column is commonly called shifted.
SHIFT = 0.25
#: A split may lie so much farther from the training days than any run of training days, and still be called usual.
MARGIN = 1.1


@dataclass(frozen=True)
class Drift:
    """Population stability indices of one column against the training days, by split.

    ``splits``: of all days of a split together. ``usual``: the largest of any run of as many training days as the split has; a column
    that follows the calendar, such as a weekday, has large ones there too. It is missing where the training days are too few to tell.
    """

    splits: Mapping[str, float]
    usual: Mapping[str, float]

    def is_shift(self, split: str) -> bool:
        """Whether a split lies far from the training days, farther than they do from each other."""
        return self.splits[split] > max(SHIFT, MARGIN * self.usual.get(split, 0.0))


def column_drift(reference: Sequence[float], counts: Mapping[str, Sequence[Sequence[int]]]) -> Drift:
    """Measure one column.

    Args:
        reference: the shares of its bins over the training days.
        counts: by split, for each of its days the counts of the bins.
    """
    splits, usual = {}, {}
    training = counts.get("train", ())
    for name, rows in counts.items():
        splits[name] = _index(reference, _sums(rows, len(rows))[0]) if rows else 0.0
        if name != "train" and rows and len(training) >= 2 * len(rows):
            usual[name] = max(_index(reference, row) for row in _sums(training, len(rows)))
    return Drift(splits, usual)


def _index(reference: Sequence[float], counts: Sequence[int]) -> float:
    """The index; vocabularies that were extended have bins that the reference lacks, and nothing was in them."""
    bins = max(len(reference), len(counts))
    expected, actual = ([*row, *[0] * (bins - len(row))] for row in (reference, counts))
    return stability_index(expected, shares(actual))


def _sums(rows: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """The sums of each run of so many rows."""
    table = np.zeros((len(rows) + 1, max(map(len, rows), default=0)), np.int64)
    for place, row in enumerate(rows, 1):
        table[place, : len(row)] = row
    table = table.cumsum(axis=0)
    sums: list[list[int]] = (table[length:] - table[:-length]).tolist()
    return sums
