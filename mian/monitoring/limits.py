"""How far a day may lie from the reference days: as far as days like these lie from each other.

A measure of a day moves for two reasons: other users (its standard error), and other days (the variance between reference days beyond
their standard errors, by the method of moments, as in DerSimonian and Laird 1986). The limit of each measure is that of a prediction
interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from mian.contract import UNKNOWN_ID
from mian.contract.stability import stability_index
from mian.metrics.paired import Estimate

Counts = npt.NDArray[np.int64]

#: So many ids have a bin of their own, the most frequent ones of the reference days; all others share one.
NAMED_BINS = 20


@dataclass(frozen=True)
class Limits:
    """Between these a measure is as on the reference days.

    Attributes:
        expected: The mean of the reference days.
        low: The lowest; None where any is good.
        high: The highest.
    """

    expected: float
    low: float | None
    high: float


def limits(reference: Sequence[Estimate], day: Estimate, level: float) -> Limits:
    """The limits of an estimate of which low and high values are a reason for an alarm.

    Args:
        reference: Of the reference days, at least two.
        day: Of the day; its standard error counts, not its value.
        level: Chance that a day like the reference days lies outside.
    """
    count = len(reference)
    values = np.array([each.value for each in reference])
    expected = float(values.mean())
    reach = _reach(values - expected, count - 1, 1.0 / count, reference, day, level / 2.0)
    return Limits(expected, expected - reach, expected + reach)


def highest(reference: Sequence[Estimate], days: Sequence[int], day: Estimate, at: int, level: float) -> Limits:
    """The limit of a share of which only high values are a reason for an alarm, such as that of unknown items.

    A share that grew steadily on the reference days may go on growing: its limit is that of the line through them.

    Args:
        reference: Of the reference days, at least three.
        days: The reference days, as numbers of days.
        day: Of the day; its standard error counts, not its value.
        at: The day, as a number of days.
        level: Chance that a day like the reference days lies above.
    """
    values, distances = np.array([each.value for each in reference]), np.array(days) - np.mean(days)
    count, spread = len(reference), float((distances**2).sum())
    slope = max(0.0, float((distances * values).sum()) / spread)
    ahead = at - float(np.mean(days))
    expected = float(values.mean()) + slope * ahead
    residuals = values - values.mean() - slope * distances
    leverage = 1.0 / count + (ahead**2 / spread if slope else 0.0)
    reach = _reach(residuals, count - (2 if slope else 1), leverage, reference, day, level)
    return Limits(expected, None, expected + reach)


def _reach(
    residuals: npt.NDArray[np.float64], freedom: int, leverage: float, reference: Sequence[Estimate], day: Estimate, tail: float
) -> float:
    """How far a day may lie from what is expected: by other days, and by other users."""
    sampling = float(np.mean([each.standard_error**2 for each in reference]))
    between = max(0.0, float((residuals**2).sum()) / freedom - sampling)
    by_days = float(stats.t.isf(tail, freedom)) ** 2 * between * (1.0 + leverage)
    by_users = float(stats.norm.isf(tail)) ** 2 * (day.standard_error**2 + sampling * leverage)
    return math.sqrt(by_days + by_users)


@dataclass(frozen=True)
class Spread:
    """How the values of a column are spread on a day.

    Attributes:
        day: The day, as a number of days.
        users: How many users of equally many rows would tell as much: the square of the sum of users' rows over the sum of their squares.
        counts: How many values each bin has.
    """

    day: int
    users: float
    counts: Counts


def stability(reference: Sequence[Spread], day: Spread, level: float, *, is_ids: bool) -> tuple[float, Limits]:
    """The population stability index of a day against all reference days, and its limits.

    What is usual is the index of each reference day against the other ones. Values that drift steadily have an index that grows with the
    square of the days between; so ``a + b days^2`` is fitted to these, neither below 0. Around that the index is as a chi-squared variable
    over its degrees of freedom, at most one less than there are bins, as many as the spread of the reference days' indices tells; so its
    limit is that of an F distribution. ``a`` is at least what equal distributions have by chance, users being alike in their rows.

    Args:
        reference: Of the reference days, at least two.
        day: Of the day.
        level: Chance that a day like the reference days lies above the limit.
        is_ids: Whether bins are ids, of which the most frequent ones count and the others together.
    """
    tables = np.stack([each.counts for each in (*reference, day)])
    if is_ids:
        tables = _named(tables, len(reference))
    known, everybody = tables[:-1], sum(each.users for each in reference)
    together = known.sum(axis=0)
    freedom = max(1, int((together > 0).sum()) - 1)
    chance = np.array([1.0 / each.users + 1.0 / (everybody - each.users) for each in reference])
    own_chance = 1.0 / day.users + 1.0 / everybody
    days = np.array([each.day for each in reference], np.float64)
    distances = (days - (days.sum() - days) / (len(days) - 1)) ** 2
    usual = np.array([_index(together - row, row) for row in known]) / (chance / chance.mean())
    still, drift = optimize.nnls(np.column_stack([np.ones(len(days)), distances]), usual)[0]
    still = max(still, freedom * float(chance.mean()))
    spread = float(np.var(usual / (still + drift * distances), ddof=1))
    own_freedom = min(float(freedom), max(1.0, 2.0 / spread)) if spread else float(freedom)
    expected = (still + drift * (day.day - days.mean()) ** 2) * max(1.0, own_chance / float(chance.mean()))
    high = expected * float(stats.f.isf(level, own_freedom, own_freedom * len(days)))
    return _index(together, tables[-1]), Limits(float(expected), None, high)


def _named(tables: Counts, reference: int) -> Counts:
    """The bin of unknown ids, those of the most frequent ids, and one of all others."""
    known = tables[:, UNKNOWN_ID + 1 :]
    frequent = np.argsort(-known[:reference].sum(axis=0), kind="stable")[:NAMED_BINS]
    named = known[:, frequent]
    rest = known.sum(axis=1) - named.sum(axis=1)
    return np.column_stack([tables[:, UNKNOWN_ID], named, rest])


def _index(expected: Counts, actual: Counts) -> float:
    return stability_index(expected / max(1, expected.sum()), actual / max(1, actual.sum()))
