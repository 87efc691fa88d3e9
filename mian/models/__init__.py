"""Models of clicks: built by name from a contract and options, called on batches of samples."""

from mian.models.click_model import ClickModel
from mian.models.mian import Mian, MianConfig
from mian.models.registry import MODELS, ModelError, build, current_names, model_columns, model_options, restore, weights_version

__all__ = [
    "MODELS",
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
]
