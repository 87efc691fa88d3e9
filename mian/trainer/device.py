"""What a machine must have for a training's settings."""

from __future__ import annotations

import os
import shutil
import sys

from mian.config import TrainConfig


class DeviceError(RuntimeError):
    """This machine lacks what the settings ask for."""


def check_compiler(config: TrainConfig) -> None:
    """See that ``compile`` can be had.

    Raises:
        DeviceError: there is no C++ compiler, which torch.compile runs.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if config.compile and shutil.which(compiler) is None:
        raise DeviceError(
            f"compile: true needs a C++ compiler, and there is no {compiler} here; install one, name it in the environment variable "
            "CXX, or train with compile=false"
        )
