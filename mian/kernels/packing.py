"""Histories without their padding."""

from __future__ import annotations

import copy
from functools import cached_property

import torch

from mian.kernels.load import fits_devices

_TENSORS = ("lengths", "offsets", "places", "samples", "steps")


class Packing:
    """Which positions of a batch's histories are real, and where they lie when only they are kept, sample after sample.

    Args:
        lengths: int ``(B,)``, how many of a sample's T positions are real; they are the first. More than T means T.
        longest: T.

    Attributes:
        shape: ``(B, T)``.
        lengths: int64 ``(B,)``, none over T.
        offsets: int64 ``(B + 1,)``; the positions of sample b are ``offsets[b]`` to ``offsets[b + 1]``.
        places: int64 ``(P,)``, where the real positions lie among all ``B * T``.
        samples: int64 ``(P,)``, the sample of each.
        steps: int64 ``(P,)``, the number of each in its history, from 0, the most recent.
    """

    def __init__(self, lengths: torch.Tensor, longest: int) -> None:
        self.shape = len(lengths), longest
        self.lengths = lengths.long().clamp(0, longest)
        pack = torch.ops.mian.pack if fits_devices(lengths) else self._found
        found: tuple[torch.Tensor, ...] = pack(self.lengths, longest)
        self.offsets, self.places, self.samples, self.steps = found

    def _found(self, lengths: torch.Tensor, longest: int) -> tuple[torch.Tensor, ...]:
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        places = self.mask.view(-1).nonzero().squeeze(1)
        return offsets, places, torch.div(places, longest, rounding_mode="floor"), places % longest

    def to(self, device: torch.device, pin: bool = False) -> Packing:
        """The same on another device; see :func:`moved`."""
        there = copy.copy(self)
        there.__dict__.pop("mask", None)
        for name in _TENSORS:
            setattr(there, name, moved(getattr(self, name), device, pin))
        return there

    def tensors(self) -> list[torch.Tensor]:
        """All that it holds."""
        return [getattr(self, name) for name in _TENSORS]

    @cached_property
    def mask(self) -> torch.Tensor:
        """Bool ``(B, T)``, true where a position is real."""
        return torch.arange(self.shape[1], device=self.lengths.device) < self.lengths[:, None]

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


def moved(tensor: torch.Tensor, device: torch.device, pin: bool = False) -> torch.Tensor:
    """A tensor on another device; ``pin``: by way of pinned memory, on the current stream, which is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if pin else tensor.to(device)
