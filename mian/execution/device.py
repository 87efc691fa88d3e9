"""Where a rank computes, and whether the machine has what the settings ask for."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys

import torch

from mian.config import TrainConfig

log = logging.getLogger(__name__)


class DeviceError(RuntimeError):
    """This machine lacks what the settings ask for."""


def choose_device(config: TrainConfig, local_rank: int) -> torch.device:
    """The device of a rank: of the machine's GPUs one after the other, or the CPU.

    Args:
        config: the settings.
        local_rank: the rank's number among those of its machine.

    Raises:
        DeviceError: there is no GPU, none that takes bfloat16, or no C++ compiler, and the settings need one.
    """
    _check_compiler(config)
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise DeviceError(
            f"device: cuda needs a GPU that torch can use, and torch {torch.__version__} finds none here; look at nvidia-smi, install "
            "a torch that is built for its CUDA, or train with device=cpu"
        )
    if config.device == "cpu" or not has_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    with torch.cuda.device(device):
        if config.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceError(
                f"precision: bf16 needs a GPU of compute capability 8.0 or later, and {torch.cuda.get_device_name(device)} is none; "
                "train with precision=fp32"
            )
    return device


def warn_of_slow_products(config: TrainConfig, device: torch.device) -> None:
    """Say so where rounding to bfloat16 makes a training slower: x86 processors without AVX-512 have no instructions for it."""
    has_instructions = "AVX512" in torch.backends.cpu.get_cpu_capability() or platform.machine() not in ("x86_64", "AMD64")
    if config.precision == "bf16" and device.type == "cpu" and not has_instructions:
        log.warning(
            "precision: bf16 makes this training several times as slow: this processor has no AVX-512, and its products of bfloat16 are "
            "emulated; train with precision=fp32"
        )


def _check_compiler(config: TrainConfig) -> None:
    """torch.compile runs one, for a GPU as well."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if config.compile and shutil.which(compiler) is None:
        raise DeviceError(
            f"compile: true needs a C++ compiler, and there is no {compiler} here; install one, name it in the environment variable "
            "CXX, or train with compile=false"
        )
