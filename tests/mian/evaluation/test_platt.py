"""Platt scaling beside scikit-learn's logistic regression, and where there is nothing to fit."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from mian.distributed.collectives import Ranks
from mian.evaluation.platt import PlattFit, calibrate, fit_platt
from mian.stream import SampleStream
from tests.factories import make_model
from tests.mian.conftest import Samples


def drawn(count: int, scale: float, offset: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Logits, and clicks with the probabilities of ``scale * logit + offset``."""
    random = np.random.default_rng(count)
    values = random.normal(-2, 1.2, count).astype(np.float32)
    return values, random.random(count) < 1 / (1 + np.exp(-(scale * values.astype(np.float64) + offset)))


def fitted(values: list[float], clicked: list[int]) -> PlattFit:
    return fit_platt(np.array(values, np.float32), np.array(clicked, np.bool_), Ranks())


@pytest.mark.parametrize(
    ("count", "scale", "offset"), [(2000, 0.7, 0.4), (300_000, 1.5, -1.0), (100, 3.0, 0.0), (5000, 0.05, -2.0)]
)
def test_the_two_numbers_are_those_of_a_logistic_regression_without_penalty(count: int, scale: float, offset: float) -> None:
    values, clicked = drawn(count, scale, offset)
    found = fit_platt(values, clicked, Ranks())
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(values.astype(np.float64)[:, np.newaxis], clicked)
    assert found.left_out is None
    assert found.scale == pytest.approx(expected.coef_[0, 0], abs=1e-4)
    assert found.offset == pytest.approx(expected.intercept_[0], abs=1e-4)
    assert found.calibration_after == pytest.approx(1, abs=1e-5)
    assert found.logloss_after < found.logloss_before
    assert abs(found.calibration_before - 1) > 1e-3


def test_a_narrow_range_of_logits_is_no_harder() -> None:
    """As a model has them that has learned next to nothing."""
    values, clicked = drawn(2000, 1.0, 0.0)
    narrow = fit_platt((values.astype(np.float64) * 2**-10 + 8).astype(np.float32), clicked, Ranks())
    expected = fit_platt(((values.astype(np.float64) * 2**-10 + 8).astype(np.float32) - np.float32(8)) * 2**10, clicked, Ranks())
    assert narrow.scale == pytest.approx(expected.scale * 2**10, rel=1e-6)
    assert narrow.logloss_after == pytest.approx(expected.logloss_after, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "clicked", "why"),
    [
        ([], [], "the split has no rows"),
        ([1, 2], [1, 1], "all 2 rows have label 1"),
        ([1, 2, 3], [0, 0, 0], "all 3 rows have label 0"),
        ([1, 1, 1], [0, 1, 0], "all rows have one score"),
        ([1, 2, 3, 4], [0, 0, 1, 1], "scores separate"),
        ([1, 2, 3, 4], [1, 1, 0, 0], "scores separate"),
        ([1, 2, 2, 3], [0, 0, 1, 1], "scores separate"),
        ([1, 2, 3, 4, 5], [1, 1, 0, 1, 0], "rows that were clicked have lower scores than others"),
        ([1, math.inf, 0], [0, 1, 1], "a logit is not finite"),
        ([-1000, 500, -500, 1000], [0, 0, 1, 1], "Newton's method has no result"),
    ],
)
def test_where_there_is_nothing_to_fit_probabilities_stay(values: list[float], clicked: list[int], why: str) -> None:
    found = fitted(values, clicked)
    assert (found.scale, found.offset) == (1, 0)
    assert why in str(found.left_out)
    assert found.logloss_after == found.logloss_before or math.isnan(found.logloss_after)


def test_a_model_is_calibrated_after_its_sampling_correction_and_anew_each_time(samples: Samples) -> None:
    model = make_model(samples.contract).train()
    model.set_negative_sampling_rate(0.1)
    stream = SampleStream(str(samples.folder), samples.contract, "validation", 64, shuffle=False, drop_last=False)
    first = calibrate(model, stream, Ranks())
    assert model.training, "its mode is left as it was"
    assert first.calibration_before < 0.5, "probabilities are those with the correction"
    assert first.calibration_after == pytest.approx(1, abs=1e-4)
    assert model.calibration == (first.scale, first.offset)
    assert calibrate(model, stream, Ranks()) == first
