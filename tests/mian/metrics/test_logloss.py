import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from mian.metrics import MetricError, UndefinedMetricError, logloss

predictions = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=50)


@given(predictions)
def test_equals_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, probabilities = (np.array(column) for column in zip(*rows, strict=True))
    assert logloss(labels, probabilities) == pytest.approx(log_loss(labels, probabilities, labels=[0, 1]), rel=1e-12, abs=1e-12)


@given(predictions)
def test_equals_scikit_learn_in_float32(rows: list[tuple[int, float]]) -> None:
    labels, probabilities = (np.array(column) for column in zip(*rows, strict=True))
    probabilities = probabilities.astype(np.float32)
    # scikit-learn clips by the epsilon of float32, but also sums in it; given float64 that is clipped already, it sums exactly enough
    epsilon = float(np.finfo(np.float32).eps)
    clipped = np.clip(probabilities.astype(np.float64), epsilon, 1 - epsilon)
    assert logloss(labels, probabilities) == pytest.approx(log_loss(labels, clipped, labels=[0, 1]), abs=1e-12)


def test_being_sure_and_wrong_is_finite() -> None:
    assert logloss([0], np.array([1], np.float32)) == pytest.approx(15.94, abs=0.01)
    assert logloss([0], [1.0]) == pytest.approx(36.04, abs=0.01)


def test_no_rows_are_undefined() -> None:
    with pytest.raises(UndefinedMetricError):
        logloss([], [])


@pytest.mark.parametrize(
    ("probabilities", "message"), [([0.5, 1.5], "row 1 has"), ([-0.1, 0.5], "row 0 has"), ([np.nan, 0.5], "NaN")]
)
def test_what_is_no_probability_is_refused(probabilities: list[float], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        logloss([0, 1], probabilities)
