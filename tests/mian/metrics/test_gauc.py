import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mian.metrics import MetricError, UndefinedMetricError, auc, gauc

impressions = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(-2, 2)), min_size=1, max_size=60)


def by_brute_force(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float | None:
    """A loop over users, as the definition reads."""
    total, weights = 0.0, 0
    for user in np.unique(users):
        mine = users == user
        if len(np.unique(labels[mine])) == 2:
            total += mine.sum() * roc_auc_score(labels[mine], scores[mine])
            weights += mine.sum()
    return total / weights if weights else None


@given(impressions)
def test_equals_the_definition(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, users = (np.array(column) for column in zip(*rows, strict=True))
    expected = by_brute_force(labels, scores, users)
    if expected is None:
        with pytest.raises(UndefinedMetricError):
            gauc(labels, scores, users)
    else:
        assert gauc(labels, scores, users) == pytest.approx(expected, abs=1e-12)


def test_equals_the_definition_on_many_rows() -> None:
    random = np.random.default_rng(0)
    users = random.zipf(1.5, 20_000) % 500 - 2**62
    scores = random.normal(size=20_000).astype(np.float32)
    labels = (random.random(20_000) < 0.2).astype(np.int32)
    assert gauc(labels, scores, users) == pytest.approx(by_brute_force(labels, scores, users), abs=1e-12)


def test_one_user_has_the_auc_of_the_whole() -> None:
    labels, scores = [1, 0, 1, 0], [0.9, 0.1, 0.5, 0.5]
    assert gauc(labels, scores, ["ann"] * 4) == auc(labels, scores)


def test_users_with_one_class_count_for_nothing() -> None:
    labels, scores, users = [1, 0, 1, 1, 0], [0.2, 0.8, 0.1, 0.2, 0.9], [1, 1, 2, 2, 3]
    assert gauc(labels, scores, users) == 0.0


def test_users_weigh_by_their_impressions() -> None:
    # user 1: 2 impressions, AUC 1; user 2: 4 impressions, AUC 0
    assert gauc([1, 0, 0, 1, 1, 1], [0.9, 0.1, 0.9, 0.1, 0.1, 0.2], [1, 1, 2, 2, 2, 2]) == pytest.approx(2 / 6)


def test_no_user_with_both_classes_is_undefined() -> None:
    with pytest.raises(UndefinedMetricError, match="none of 2 users"):
        gauc([1, 0], [0.1, 0.2], [1, 2])


def test_users_of_another_length_are_refused() -> None:
    with pytest.raises(MetricError, match="3 users, 2 labels"):
        gauc([1, 0], [0.1, 0.2], [1, 2, 3])
