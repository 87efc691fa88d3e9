"""Counts of rows, a part after the other, against the metrics of all rows at once."""

from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mian.metrics import ScoreSums, UserSums, evaluate, evaluate_sums, pack_outcomes, reliability

# Few users and scores, 0 and 1 among them, so that ties are the rule.
some_rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(-2, 2)), max_size=60)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, np.int64).reshape(-1, 3)
    return table[:, 0], (table[:, 1] / 8).astype(np.float32), table[:, 2]


def score_sums(labels: np.ndarray, probabilities: np.ndarray, borders: list[float]) -> ScoreSums:
    """Of rows that are cut at some scores."""
    parts = []
    for low, high in zip([-1.0, *borders], [*borders, 2.0], strict=True):
        inside = (probabilities >= low) & (probabilities < high)
        outcomes, counts = np.unique(pack_outcomes(labels[inside], probabilities[inside]), return_counts=True)
        parts.append(ScoreSums.of(outcomes, counts, int((probabilities < low).sum()), len(labels)))
    return reduce(add, parts)


def user_sums(labels: np.ndarray, probabilities: np.ndarray, users: np.ndarray, borders: list[tuple[int, float]]) -> UserSums:
    """Of rows that are cut at some users and scores."""
    rows = pd.DataFrame({"user": users, "p": probabilities.astype(float), "outcome": pack_outcomes(labels, probabilities)})
    counted = rows.groupby(["user", "p", "outcome"]).size().reset_index(name="count")
    part = sum((counted.user > user) | ((counted.user == user) & (counted.p >= p)) for user, p in borders) + 0 * counted.user
    parts = [counted[part == number] for number in range(len(borders) + 1)]
    return reduce(add, (UserSums.of(*(of[name].to_numpy() for name in ("user", "outcome", "count"))) for of in parts))


@settings(deadline=None)  # the oracle groups with pandas
@given(
    some_rows,
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 9)), max_size=6),
)
def test_metrics_are_those_of_all_rows_wherever_they_are_cut(
    rows: list[tuple[int, int, int]], eighths: list[int], places: list[tuple[int, int]]
) -> None:
    labels, probabilities, users = columns(rows)
    by_score = score_sums(labels, probabilities, [eighth / 8 for eighth in sorted(eighths)])
    by_user = user_sums(labels, probabilities, users, [(user, eighth / 8) for user, eighth in sorted(places)])
    expected = evaluate(labels, probabilities, users)
    assert evaluate_sums(by_score, by_user) == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)
    if rows:
        pd.testing.assert_frame_equal(by_score.reliability(), reliability(labels, probabilities), check_exact=False, rtol=1e-12)


@pytest.mark.parametrize(
    "labels", [[], [0, 0, 0], [1, 1, 1], [0, 1, 0]], ids=["no rows", "no clicks", "clicks alone", "users of one class"]
)
def test_what_is_undefined_says_why_as_the_metrics_of_rows_do(labels: list[int], caplog: pytest.LogCaptureFixture) -> None:
    clicked, users = np.array(labels, np.int64), np.array([7, 8, 7][: len(labels)], np.int64)
    probabilities = np.array([0.25, 0.5, 0.75][: len(labels)], np.float32)
    evaluate(clicked, probabilities, users)
    expected = caplog.messages
    caplog.clear()
    evaluate_sums(score_sums(clicked, probabilities, []), user_sums(clicked, probabilities, users, []))
    assert caplog.messages == expected != []


def test_minus_zero_is_zero() -> None:
    assert len(set(pack_outcomes(np.array([1, 1]), np.array([-0.0, 0.0], np.float32)).tolist())) == 1


def test_numbers_of_pairs_beyond_those_of_float64_are_exact() -> None:
    half = np.array([0.25, 0.25, 0.5, 0.5], np.float32)
    counts = np.array([10**9, 1, 1, 10**9])
    sums = ScoreSums.of(pack_outcomes(np.array([0, 1, 0, 1]), half), counts, 0, int(counts.sum()))
    assert sums.pairs.won == 2 * 10**18 + 2 * 10**9  # all but the pairs that tie, which count once, and the one that is lost
