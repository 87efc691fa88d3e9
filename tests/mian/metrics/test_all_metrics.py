import logging

import numpy as np
import pytest

from mian.metrics import MetricError, auc, calibration, evaluate, gauc, logloss

KEYS = {"auc", "logloss", "gauc", "calibration", "rows", "positives"}


def test_every_metric_has_its_key() -> None:
    labels, p, users = np.array([1, 0, 0, 1]), np.array([0.8, 0.3, 0.4, 0.2]), np.array([7, 7, 9, 9])
    assert evaluate(labels, p, users) == {
        "auc": auc(labels, p),
        "logloss": logloss(labels, p),
        "gauc": gauc(labels, p, users),
        "calibration": calibration(labels, p),
        "rows": 4.0,
        "positives": 2.0,
    }


def test_an_undefined_metric_is_nan_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = evaluate([0, 0], [0.1, 0.2], [1, 1])
    assert metrics.keys() == KEYS
    assert {name for name, value in metrics.items() if np.isnan(value)} == {"auc", "gauc", "calibration"}
    assert "auc is undefined: AUC needs both classes: all 2 labels are 0" in caplog.text


def test_no_rows_have_no_metrics() -> None:
    metrics = evaluate([], [], [])
    assert metrics.keys() == KEYS
    assert metrics["rows"] == 0
    assert all(np.isnan(metrics[name]) for name in KEYS - {"rows", "positives"})


def test_wrong_input_is_still_an_error() -> None:
    with pytest.raises(MetricError, match="NaN"):
        evaluate([0, 1], [0.1, np.nan], [1, 1])
