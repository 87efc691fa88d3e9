"""The operators of packed histories for a GPU, in Triton.

They read the packed positions where they lie: nothing is padded, copied or masked. A program works on a sample, or on a head of it, or
on a few samples, so many positions at a time, so that histories of any length fit. What is added up, is in float32.
"""

import torch

from mian.kernels.gpu.attention_pooling import pool, pool_backward, softmax, softmax_backward
from mian.kernels.gpu.recurrence import recurrence, recurrence_backward
from mian.kernels.gpu.self_attention import attention, attention_backward

_OPERATORS = (
    *(attention, attention_backward),
    *(softmax, softmax_backward, pool, pool_backward),
    *(recurrence, recurrence_backward),
)

_library = torch.library.Library("mian", "FRAGMENT")  # held: what it adds goes with it


def register() -> None:
    """Tell torch that ``torch.ops.mian`` has these for a GPU."""
    for function in _OPERATORS:
        _library.impl(function.__name__, function, "CUDA")
