import pytest

from mian.metrics import MetricError, UndefinedMetricError, calibration


def test_the_mean_predicted_over_the_observed_rate() -> None:
    assert calibration([0, 0, 0, 1], [0.1, 0.2, 0.3, 0.6]) == pytest.approx(0.3 / 0.25)


def test_no_click_is_undefined() -> None:
    with pytest.raises(UndefinedMetricError, match="needs a click"):
        calibration([0, 0], [0.1, 0.2])


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(MetricError, match=r"in \[0, 1\]"):
        calibration([0, 1], [-2.0, 3.0])
