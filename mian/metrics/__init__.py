"""How good predictions are: one metric a file, NumPy in, float out."""

from mian.metrics.all_metrics import evaluate, evaluate_sums
from mian.metrics.auc import auc
from mian.metrics.by_score import ScoreSums, pack_outcomes
from mian.metrics.by_user import UserSums
from mian.metrics.calibration import calibration
from mian.metrics.gauc import gauc
from mian.metrics.logloss import logloss
from mian.metrics.reliability import reliability
from mian.metrics.reliability_plot import plot_reliability
from mian.metrics.validation import MetricError, UndefinedMetricError

__all__ = [
    "MetricError",
    "ScoreSums",
    "UndefinedMetricError",
    "UserSums",
    "auc",
    "calibration",
    "evaluate",
    "evaluate_sums",
    "gauc",
    "logloss",
    "pack_outcomes",
    "plot_reliability",
    "reliability",
]
