"""Histories without their padding."""

from __future__ import annotations

from functools import cached_property

import torch


class Packing:
    """Which positions of a batch's histories are real, and where they lie when only they are kept, sample after sample.

    Args:
        lengths: int ``(B,)``, how many of a sample's T positions are real; they are the first. More than T means T.
        longest: T.
    """

    def __init__(self, lengths: torch.Tensor, longest: int) -> None:
        self.shape = len(lengths), longest  # (B, T)
        self.lengths = lengths.long().clamp(0, longest)
        self.offsets = torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])
        """``(B + 1,)``: the positions of sample b are ``offsets[b]`` to ``offsets[b + 1]``."""

    @cached_property
    def mask(self) -> torch.Tensor:
        """Bool ``(B, T)``, true where a position is real."""
        return torch.arange(self.shape[1], device=self.lengths.device) < self.lengths[:, None]

    @cached_property
    def places(self) -> torch.Tensor:
        """Int64 ``(P,)``: where the real positions lie among all ``B * T``."""
        return self.mask.view(-1).nonzero().squeeze(1)

    @cached_property
    def samples(self) -> torch.Tensor:
        """Int64 ``(P,)``: the sample of each position."""
        return torch.div(self.places, self.shape[1], rounding_mode="floor")

    @cached_property
    def steps(self) -> torch.Tensor:
        """Int64 ``(P,)``: each position's number in its history, from 0, the most recent."""
        return self.places % self.shape[1]

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """The real positions: from ``(B, T, ...)`` to ``(P, ...)``."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """From ``(P, ...)`` to ``(B, T, ...)``, 0 where no position is real."""
        flat = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return flat.index_copy(0, self.places, packed).view(*self.shape, *packed.shape[1:])

    def sum(self, packed: torch.Tensor) -> torch.Tensor:
        """Each sample's sum: from ``(P, ...)`` to ``(B, ...)``."""
        return packed.new_zeros(self.shape[0], *packed.shape[1:]).index_add(0, self.samples, packed)
