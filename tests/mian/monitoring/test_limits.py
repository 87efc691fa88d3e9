"""Limits on days that are drawn: how often a quiet day lies outside, and that a changed day does."""

import datetime as dt

import numpy as np
import pytest

from mian.metrics.paired import Estimate
from mian.monitoring.limits import Limits, Spread, highest, limits, stability

DRAWS = 3000


def days_of(rng: np.random.Generator, count: int, between: float, error: float) -> list[Estimate]:
    values = rng.normal(0.3, np.hypot(between, error), count)
    return [Estimate(float(value), error, 500) for value in values]


def found_limits(reference: list[Estimate], day: Estimate, level: float, *, is_upward: bool) -> Limits:
    return highest(reference, range(len(reference)), day, len(reference), level) if is_upward else limits(reference, day, level)


@pytest.mark.parametrize(("between", "error"), [(0.0, 0.02), (0.02, 0.02), (0.1, 0.01)])
@pytest.mark.parametrize("is_upward", [True, False])
def test_a_quiet_day_lies_outside_as_often_as_stated(between: float, error: float, is_upward: bool) -> None:
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(DRAWS):
        *reference, day = days_of(rng, 8, between, error)
        found = found_limits(reference, day, 0.05, is_upward=is_upward)
        outside += day.value > found.high or (found.low is not None and day.value < found.low)
    assert 0.01 < outside / DRAWS < 0.075


def test_limits_are_around_the_mean_of_the_reference_and_narrower_with_more_days() -> None:
    rng = np.random.default_rng(1)
    many = days_of(rng, 28, 0.02, 0.01)
    day = Estimate(0.3, 0.01, 500)
    few_found, found = (limits(reference, day, 0.001) for reference in (many[:4], many))
    assert found.low is not None
    assert found.low < found.expected < found.high
    assert found.expected == pytest.approx(np.mean([each.value for each in many]))
    assert found.high - found.expected < few_found.high - few_found.expected


def test_a_day_with_fewer_users_has_wider_limits() -> None:
    reference = days_of(np.random.default_rng(2), 7, 0.0, 0.01)
    large, small = (found_limits(reference, Estimate(0.3, error, 500), 0.001, is_upward=True) for error in (0.01, 0.05))
    assert small.high > large.high


def spread(rng: np.random.Generator, shares: np.ndarray, place: int, users: int = 400, rows: int = 3) -> Spread:
    """Each user has one value, in all of its rows."""
    return Spread(dt.date(2026, 3, 1).toordinal() + place, users, rng.multinomial(users, shares) * rows)


def test_a_share_that_grew_on_the_reference_days_may_go_on_growing() -> None:
    rng = np.random.default_rng(7)
    grown = [Estimate(0.01 + 0.004 * place + float(rng.normal(0, 0.001)), 0.001, 500) for place in range(7)]
    day = Estimate(0.01 + 0.004 * 12, 0.001, 500)
    found = highest(grown, range(7), day, 12, 1e-4)
    assert day.value < found.high < 3 * day.value
    still = [Estimate(0.01 + float(rng.normal(0, 0.001)), 0.001, 500) for _ in range(7)]
    assert day.value > highest(still, range(7), day, 12, 1e-4).high


SHARES = np.array([0.0, 0.05, 0.5, 0.3, 0.15])


def test_quiet_days_are_stable_about_as_often_as_stated() -> None:
    rng = np.random.default_rng(3)
    level, outside = 0.02, 0
    for _ in range(DRAWS):
        *reference, day = (spread(rng, SHARES, place) for place in range(8))
        index, found = stability(reference, day, level, is_ids=False)
        outside += index > found.high
    assert outside / DRAWS < 1.5 * level


def test_other_shares_are_no_stability() -> None:
    rng = np.random.default_rng(4)
    reference = [spread(rng, SHARES, place) for place in range(7)]
    index, found = stability(reference, spread(rng, SHARES[::-1], 7), 1e-4, is_ids=False)
    assert index > found.high


def test_values_that_drifted_on_the_reference_days_may_go_on_drifting() -> None:
    rng = np.random.default_rng(5)

    def at(place: int) -> Spread:
        return spread(rng, SHARES + place * np.array([0.0, 0.02, -0.02, 0.0, 0.0]), place, users=20_000)

    reference = [at(place) for place in range(7)]
    index, found = stability(reference, at(12), 1e-4, is_ids=False)
    still = [spread(rng, SHARES, place, users=20_000) for place in range(7)]
    assert index < found.high
    index, found = stability(still, at(12), 1e-4, is_ids=False)
    assert index > found.high


def test_of_ids_the_unknown_and_the_most_frequent_count_and_the_rare_ones_together() -> None:
    rng = np.random.default_rng(6)
    frequent, rare = np.full(10, 0.08), np.full(1000, 0.0002)

    def drawn(shares: np.ndarray, place: int) -> Spread:
        return spread(rng, np.concatenate([[0.0], shares]) / shares.sum(), place, users=5_000)

    usual = np.concatenate([[0.0], frequent, rare])
    reference = [drawn(usual, place) for place in range(7)]
    index, found = stability(reference, drawn(usual, 7), 1e-4, is_ids=True)
    assert index < found.high
    index, found = stability(
        reference, drawn(np.concatenate([[0.0], frequent, rng.permutation(rare * 2)[:500], np.zeros(500)]), 7), 1e-4, is_ids=True
    )
    assert index < found.high, "other rare ids than before are the same bin"
    index, found = stability(reference, drawn(np.concatenate([[0.4], frequent, rare]), 7), 1e-4, is_ids=True)
    assert index > found.high, "four in ten are unknown"


def test_a_column_that_never_changes_is_stable() -> None:
    same = [Spread(place, 100, np.array([0, 0, 300])) for place in range(8)]
    index, found = stability(same[:7], same[7], 1e-4, is_ids=False)
    assert index == 0.0 <= found.high
