import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mian.metrics import MetricError, UndefinedMetricError, auc

# Few distinct scores, so that ties are the rule.
tied_rows = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = zip(*rows, strict=True)
    return np.array(labels), np.array(scores, np.float64)


def test_a_hand_made_case() -> None:
    # pairs (click, non-click): 0.9 > 0.1, 0.9 > 0.5, 0.5 > 0.1, 0.5 = 0.5
    assert auc([1, 0, 1, 0], [0.9, 0.1, 0.5, 0.5]) == 3.5 / 4


@given(tied_rows)
def test_equals_scikit_learn_with_ties(rows: list[tuple[int, int]]) -> None:
    labels, scores = columns(rows)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_scikit_learn_on_many_rows(dtype: type) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=100_000).astype(dtype)
    labels = random.random(100_000) < 1 / (1 + np.exp(-scores))
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(tied_rows)
def test_turning_scores_round_gives_the_complement(rows: list[tuple[int, int]]) -> None:
    labels, scores = columns(rows)
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-12)


@given(tied_rows, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_a_monotone_map_matters(rows: list[tuple[int, int]], random: object) -> None:
    labels, scores = columns(rows)
    expected = auc(labels, scores)
    random.shuffle(rows)  # type: ignore[attr-defined]
    labels, scores = columns(rows)
    assert auc(labels, np.exp(scores)) == expected


def test_infinite_scores_are_scores() -> None:
    assert auc([0, 1, 1], [-np.inf, 0.0, np.inf]) == 1.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_undefined(label: int) -> None:
    with pytest.raises(UndefinedMetricError, match=f"both classes: all 3 labels are {label}"):
        auc([label] * 3, [0.1, 0.2, 0.3])


def test_no_rows_are_undefined() -> None:
    with pytest.raises(UndefinedMetricError, match="empty"):
        auc(np.array([]), np.array([]))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1, 1], [0.1, np.nan, np.nan], "NaN in 2 of 3 rows, the first is row 1"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "0 or 1: row 2"),
        ([0, np.nan], [0.1, 0.2], "0 or 1: row 1"),
        (["0", "1"], [0.1, 0.2], "must be numbers"),
        ([0, 1], [0.1, 0.2, 0.3], "3 scores, 2 labels"),
        ([[0, 1]], [0.1, 0.2], r"shape \(N,\), got \(1, 2\)"),
    ],
)
def test_wrong_input_is_named(labels: object, scores: object, message: str) -> None:
    with pytest.raises(MetricError, match=message) as error:
        auc(labels, scores)  # type: ignore[arg-type]
    assert not isinstance(error.value, UndefinedMetricError)
