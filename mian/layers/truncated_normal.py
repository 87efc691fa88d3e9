"""Numbers from a truncated normal, each decided by its place alone."""

from __future__ import annotations

import math

import torch

#: How much of a normal lies below two deviations under its mean.
_BELOW = 0.5 * (1 + math.erf(-math.sqrt(2)))
_GOLDEN = -0x61C8864680B583EB  # 2^64 over the golden ratio, as a signed number
_FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
_BITS = 53  # of a float64's fraction


def truncated_normal(places: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw from the standard normal cut off at two deviations.

    A hash of seed and place (SplitMix64: Steele, Lea and Flood 2014) is the uniform number whose quantile is taken.

    Args:
        places: int64, of any shape.
        seed: 63 bits.

    Returns:
        Float32 of the shape of ``places``.
    """
    bits = (places + 1) * _GOLDEN + seed
    for factor, shift in zip((*_FACTORS, 1), (30, 27, 31), strict=True):
        bits ^= (bits >> shift) & ((1 << (64 - shift)) - 1)  # torch's shift takes the sign along
        bits *= factor
    uniform = ((bits >> (64 - _BITS)) & ((1 << _BITS) - 1)).double().add_(0.5).mul_(2.0**-_BITS)  # in (0, 1)
    share = uniform.mul_(1 - 2 * _BELOW).add_(_BELOW)
    quantiles: torch.Tensor = torch.special.ndtri(share)
    return quantiles.float()
