"""How sure a label rate is."""

from __future__ import annotations

import math

#: Of a normal distribution, 95 % lie so many standard deviations around the mean.
Z = 1.959964


def rate_interval(positives: float, negatives: float, kept: float = 1.0) -> tuple[float, float]:
    """A 95 % interval of the share of positives, by the normal distribution of its logit; rows are taken for independent.

    Args:
        positives: how many there are; all of them were kept.
        negatives: how many were kept.
        kept: the share of negatives that was kept.

    Returns:
        Bounds of the share before negatives were left out; half a row is added to both sides where one is empty.
    """
    if not positives or not negatives:
        positives, negatives = positives + 0.5, negatives + 0.5
    middle = math.log(positives / (negatives / kept))
    spread = Z * math.sqrt(1 / positives + 1 / negatives)
    low, high = (1 / (1 + math.exp(-(middle + side * spread))) for side in (-1, 1))
    return low, high
