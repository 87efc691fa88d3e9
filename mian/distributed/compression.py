"""Gradients in 16 bits, for their way between ranks.

Nothing is computed in 16 bits: vectors are packed, travel as bytes, are unpacked, and then added up in float32. Horovod itself would add
float16 in float16, where a sum of two ranks' 40,000 is infinite, and does not know bfloat16.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch

#: The largest entry of a packed vector lies from 2^14 to 2^15; float16 ends just under 2^16.
_LARGEST_EXPONENT = 15

#: Powers of two that are normal float32 numbers, and whose inverses are.
_SCALES = (-126, 120)

#: So many numbers of a dense gradient are a vector, with a scale of their own.
_BLOCK = 128


class GradientCodec(Protocol):
    """Vectors of float32 as bytes and back, each for itself; what is no number stays none."""

    def compress(self, vectors: torch.Tensor) -> torch.Tensor:
        """Pack float32 ``(N, width)``: uint8 ``(N, bytes)``."""

    def decompress(self, packed: torch.Tensor) -> torch.Tensor:
        """The vectors again, float32 ``(N, width)``."""


class BFloat16:
    """Seven bits of a number behind its first one; all of float32's range, so that nothing has to be scaled. 2 bytes a number."""

    def compress(self, vectors: torch.Tensor) -> torch.Tensor:
        """See :meth:`GradientCodec.compress`."""
        return vectors.bfloat16().view(torch.uint8)

    def decompress(self, packed: torch.Tensor) -> torch.Tensor:
        """See :meth:`GradientCodec.decompress`."""
        return packed.view(torch.bfloat16).float()


class ScaledFloat16:
    """Ten bits of a number behind its first one; 2 bytes a number, and 2 a vector.

    float16 ends at 65,504 and knows nothing under 6e-8, which is more than many a gradient of a mean over a batch. So each vector travels
    times the power of two that brings its largest entry near the end of the range, with that power's exponent behind it: nothing becomes
    infinite, and an entry keeps its ten bits unless it is under 2^-29 of the vector's largest.
    """

    def compress(self, vectors: torch.Tensor) -> torch.Tensor:
        """See :meth:`GradientCodec.compress`."""
        largest = torch.frexp(vectors.abs().amax(dim=1, keepdim=True)).exponent
        exponents = (_LARGEST_EXPONENT - largest).clamp_(*_SCALES)
        return torch.cat([(vectors * _power_of_two(exponents)).half(), exponents.half()], dim=1).view(torch.uint8)

    def decompress(self, packed: torch.Tensor) -> torch.Tensor:
        """See :meth:`GradientCodec.decompress`."""
        numbers = packed.view(torch.float16)
        return numbers[:, :-1].float() * _power_of_two(-numbers[:, -1:].int())


def gradient_codec(compression: Literal["none", "fp16", "bf16"]) -> GradientCodec | None:
    """What ``optimizer.compression`` names; None for none."""
    return {"none": None, "fp16": ScaledFloat16(), "bf16": BFloat16()}[compression]


def blocks(dense: torch.Tensor, ranks: int) -> torch.Tensor:
    """A dense gradient as vectors, the same number for each rank, ``(ranks * N, block)``, padded with 0.

    The last number, which says whether all others are numbers, lies in a vector of its own: it must not decide how another is rounded.

    Args:
        dense: ``(M,)``.
        ranks: how many there are.
    """
    rows = -(-(len(dense) - 1) // _BLOCK) + 1
    padded = dense.new_zeros(-(-rows // ranks) * ranks, _BLOCK)
    padded.view(-1)[: len(dense) - 1] = dense[:-1]
    padded[-1, -1] = dense[-1]
    return padded


def from_blocks(dense: torch.Tensor, vectors: torch.Tensor) -> None:
    """Put what :func:`blocks` has made vectors of back in its place."""
    dense[:-1] = vectors.view(-1)[: len(dense) - 1]
    dense[-1:] = vectors[-1, -1:]


def _power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """Exactly, float32; exponents are int32, from -126 to 127."""
    return ((exponents + 127) << 23).view(torch.float32)
