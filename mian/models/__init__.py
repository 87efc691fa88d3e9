"""Models of clicks: built by name from a contract and options, called on batches of samples."""

from mian.models.click_model import UNCALIBRATED, ClickModel, with_calibration
from mian.models.mian import Mian, MianConfig
from mian.models.registry import MODELS, ModelError, build, current_names, model_columns, model_options, restore, weights_version

__all__ = [
    "MODELS",
    "UNCALIBRATED",
    "ClickModel",
    "Mian",
    "MianConfig",
    "ModelError",
    "build",
    "current_names",
    "model_columns",
    "model_options",
    "restore",
    "weights_version",
    "with_calibration",
]
