"""How good predictions are: one metric a file, NumPy in, float out."""

from mian.metrics.auc import auc
from mian.metrics.calibration import calibration
from mian.metrics.checks import MetricError, UndefinedMetricError
from mian.metrics.evaluate import evaluate
from mian.metrics.gauc import gauc
from mian.metrics.logloss import logloss
from mian.metrics.reliability import reliability
from mian.metrics.reliability_plot import plot_reliability

__all__ = [
    "MetricError",
    "UndefinedMetricError",
    "auc",
    "calibration",
    "evaluate",
    "gauc",
    "logloss",
    "plot_reliability",
    "reliability",
]
