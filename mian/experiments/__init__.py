"""Experiments: many trainings on one data set, and what they say together."""

from mian.experiments.plan_config import ExperimentConfig
from mian.experiments.report import write_report
from mian.experiments.runner import forget_others, send_records, train_all
from mian.experiments.trials import Experiment, ExperimentError

__all__ = ["Experiment", "ExperimentConfig", "ExperimentError", "forget_others", "send_records", "train_all", "write_report"]
