"""Intervals over users, beside a bootstrap over users and beside what the metrics are."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mian.metrics import MetricError, UndefinedMetricError, auc, calibration, logloss
from mian.metrics.paired import (
    Estimate,
    auc_difference,
    auc_estimate,
    calibration_estimate,
    holm,
    logloss_difference,
    logloss_estimate,
    share_estimate,
)

Arrays = tuple[npt.NDArray[Any], ...]


def drawn(seed: int, users: int = 400, noise: float = 0.5) -> Arrays:
    """Labels, users and the probabilities of two models, alike within each user."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 20, users)
    row_users = np.repeat(np.arange(users), rows)
    logits = rng.normal(-1.0, 1.0, users)[row_users] + rng.normal(0, 0.7, len(row_users))
    labels = (rng.random(len(row_users)) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    one, other = (1 / (1 + np.exp(-(logits + rng.normal(0, scale, len(logits))))) for scale in (noise, 0.4))
    return labels, row_users * 31 - 5, one.round(2).clip(0.01, 0.99), other


def bootstrap(arrays: Arrays, metric: Any, draws: int = 600) -> float:
    """Standard deviation of a metric where users are drawn anew."""
    users = arrays[1]
    rows = [np.flatnonzero(users == user) for user in np.unique(users)]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        picked = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        values.append(metric(*(array[picked] for array in arrays)))
    return float(np.std(values))


@pytest.mark.parametrize(
    ("estimate", "metric"),
    [
        (auc_difference, lambda y, u, p, q: auc(y, p) - auc(y, q)),
        (logloss_difference, lambda y, u, p, q: logloss(y, p) - logloss(y, q)),
        (lambda y, u, p, q: calibration_estimate(y, u, p), lambda y, u, p, q: calibration(y, p)),
        (lambda y, u, p, q: logloss_estimate(y, u, p), lambda y, u, p, q: logloss(y, p)),
        (lambda y, u, p, q: auc_estimate(y, u, p), lambda y, u, p, q: auc(y, p)),
        (lambda y, u, p, q: share_estimate(y, p, u), lambda y, u, p, q: y.sum() / p.sum()),
    ],
)
def test_values_are_the_metrics_and_errors_those_of_a_bootstrap_over_users(estimate: Any, metric: Any) -> None:
    arrays = drawn(1)
    found = estimate(*arrays)
    assert found.value == pytest.approx(metric(*arrays), abs=1e-9)
    assert found.standard_error == pytest.approx(bootstrap(arrays, metric), rel=0.12)
    assert found.users == 400


def test_bounds_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    outside = 0
    for seed in range(300):
        labels, users, one, other = drawn(seed, users=120)
        flip = rng.random(len(one)) < 0.5  # then neither model is better
        mixed = np.where(flip, one, other), np.where(flip, other, one)
        outside += auc_difference(labels, users, *mixed).quantile(0.975) < 0
    assert outside <= 16, "2.5 % of 300 are 7.5; 16 or more happen by chance in less than one of 200 runs"


def test_users_count_and_not_rows() -> None:
    labels, users, one, other = drawn(2)
    repeated = [np.tile(array, 9) for array in (labels, users, one, other)]
    assert auc_difference(*repeated).standard_error == pytest.approx(auc_difference(labels, users, one, other).standard_error)


def test_the_same_scores_differ_by_nothing() -> None:
    labels, users, one, _ = drawn(3)
    same = auc_difference(labels, users, one, one)
    assert (same.value, same.standard_error, same.quantile(0.975), same.chance_above()) == (0.0, 0.0, 0.0, 1.0)


def test_a_chance_is_small_where_the_value_is_above_the_limit() -> None:
    found = Estimate(0.004, 0.001, 500)
    assert found.chance_above() < 1e-4 < 0.5 < found.chance_above(0.005)
    low, high = found.interval(0.95)
    assert low == pytest.approx(0.004 - 1.965 * 0.001, abs=1e-5)
    assert found.quantile(0.975) == high


def test_of_one_user_nothing_is_known() -> None:
    found = logloss_difference([0, 1], ["u", "u"], [0.5, 0.6], [0.4, 0.4])
    assert np.isnan(found.standard_error)
    assert np.isnan(found.quantile(0.975))
    assert found.chance_above() == 1.0


def test_holm_is_that_of_the_textbook() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}


@pytest.mark.parametrize("label", [0, 1])
def test_what_is_undefined_is_told(label: int) -> None:
    with pytest.raises(UndefinedMetricError, match="one label"):
        auc_difference([label] * 3, [1, 2, 3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    with pytest.raises(UndefinedMetricError, match="one label"):
        auc_estimate([label] * 3, [1, 2, 3], [0.1, 0.2, 0.3])
    with pytest.raises(UndefinedMetricError, match="nothing"):
        share_estimate([0, 0], [0, 0], [1, 2])
    if not label:
        with pytest.raises(UndefinedMetricError, match="clicked"):
            calibration_estimate([0, 0], [1, 2], [0.1, 0.2])


def test_bad_input_is_refused() -> None:
    for counted, totals in (([1], [1, 1]), ([], [])):
        with pytest.raises(MetricError, match="as many of both"):
            share_estimate(counted, totals, range(len(totals)))
    with pytest.raises(MetricError):
        logloss_difference([0, 1], [1, 2], [0.1, float("nan")], [0.1, 0.2])
    with pytest.raises(MetricError):
        logloss_difference([0, 1], [1], [0.1, 0.2], [0.1, 0.2])
