"""Histories without their padding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch

from mian.kernels.load import fits_devices

_TENSORS = ("lengths", "offsets", "places", "samples", "steps")


class JaggedLayout:
    """Which positions of a batch's histories are real, and where they lie when only they are kept, sample after sample.

    Args:
        lengths: int ``(B,)``, how many of a sample's T positions are real; they are the first. More than T means T.
        longest: T.

    Attributes:
        shape: ``(B, T)``.
        lengths: int64 ``(B,)``, none over T.
        real: how many positions are real: P, unless it was rounded up, see :meth:`pad_to_multiple`.
        offsets: int64 ``(B + 1,)``; the positions of sample b are ``offsets[b]`` to ``offsets[b + 1]``.
        places: int64 ``(P,)``, where the real positions lie among all ``B * T``.
        samples: int64 ``(P,)``, the sample of each.
        summed: the same, but B where a position is not real.
        steps: int64 ``(P,)``, the number of each in its history, from 0, the most recent.
    """

    def __init__(self, lengths: torch.Tensor, longest: int) -> None:
        self.shape = lengths.shape[0], longest
        self.lengths = lengths.long().clamp(0, longest)
        pack = torch.ops.mian.pack if fits_devices(lengths) else self._found
        found: tuple[torch.Tensor, ...] = pack(self.lengths, longest)
        self.offsets, self.places, self.samples, self.steps = found
        self.summed = self.samples
        self.real = len(self.places)
        self._is_rounded = False

    def _found(self, lengths: torch.Tensor, longest: int) -> tuple[torch.Tensor, ...]:
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        places = self.mask.view(-1).nonzero().squeeze(1)
        return offsets, places, torch.div(places, longest, rounding_mode="floor"), places % longest

    def pad_to_multiple(self, multiple: int) -> JaggedLayout:
        """The same with positions that are not real behind those that are, so that P is a multiple of ``multiple``, or all of ``B * T``.

        For a GPU, to which batches of few sizes are easier to give. What is there is not attended to, nor added up.
        """
        wanted = min(-(-self.real // multiple) * multiple, self.shape[0] * self.shape[1])
        others = (~self.mask).view(-1).nonzero().squeeze(1)[: wanted - self.real]
        rounded = copy.copy(self)
        rounded.places = torch.cat([self.places, others])
        rounded.samples = torch.cat([self.samples, torch.div(others, self.shape[1], rounding_mode="floor")])
        rounded.steps = torch.cat([self.steps, others % self.shape[1]])
        rounded.summed = torch.cat([self.samples, torch.full_like(others, self.shape[0])])
        rounded._is_rounded = True
        return rounded

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> JaggedLayout:
        """The same with other tensors in the place of its own, which are given to ``change`` in an order that is always the same."""
        changed = copy.copy(self)
        changed.__dict__.pop("mask", None)
        for name in _TENSORS:
            setattr(changed, name, change(getattr(self, name)))
        changed.summed = change(self.summed) if self._is_rounded else changed.samples
        return changed

    @cached_property
    def mask(self) -> torch.Tensor:
        """Bool ``(B, T)``, true where a position is real."""
        return torch.arange(self.shape[1], device=self.lengths.device) < self.lengths[:, None]

    @property
    def counted(self) -> torch.Tensor | None:
        """Bool ``(P,)``, true where a position is real; None where all are, because nothing was rounded up."""
        return self.summed < self.shape[0] if self._is_rounded else None

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """The real positions: from ``(B, T, ...)`` to ``(P, ...)``."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """From ``(P, ...)`` to ``(B, T, ...)``, 0 where no position is real."""
        flat = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return flat.index_copy(0, self.places, packed).view(*self.shape, *packed.shape[1:])

    def repeat(self, count: int) -> JaggedLayout:
        """The layout of a batch that has the history of this one's only sample ``count`` times."""
        return type(self)(self.lengths.expand(count), self.shape[1])

    def sum(self, packed: torch.Tensor) -> torch.Tensor:
        """Each sample's sum: from ``(P, ...)`` to ``(B, ...)``."""
        count = self.shape[0] + self._is_rounded
        return packed.new_zeros(count, *packed.shape[1:]).index_add(0, self.summed, packed)[: self.shape[0]]


class DenseLayout(JaggedLayout):
    """All positions stay where they are, real or not, so that no shape depends on how long the histories are.

    For an exported graph, whose operators are the same for every batch. Arguments and attributes are those of :class:`JaggedLayout`, with
    ``P = B * T``; what stands at a position that is not real changes nothing.
    """

    def __init__(self, lengths: torch.Tensor, longest: int) -> None:
        self.shape = lengths.shape[0], longest
        self.lengths = lengths.long().clamp(0, longest)
        self.real = self.shape[0] * longest
        self.places = torch.arange(self.real, device=lengths.device)
        self.samples = torch.div(self.places, longest, rounding_mode="floor")
        self.steps = self.places % longest
        self.offsets = torch.arange(self.shape[0] + 1, device=lengths.device) * longest
        self.summed = torch.where(self.mask.flatten(), self.samples, self.shape[0])
        self._is_rounded = True

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """See :meth:`JaggedLayout.pack`."""
        return padded.flatten(0, 1)

    def pad(self, packed: torch.Tensor) -> torch.Tensor:
        """See :meth:`JaggedLayout.pad`."""
        padded = packed.view(*self.shape, *packed.shape[1:])
        return torch.where(self.mask.view(*self.shape, *[1] * (packed.dim() - 1)), padded, 0.0)

    def sum(self, packed: torch.Tensor) -> torch.Tensor:
        """See :meth:`JaggedLayout.sum`."""
        return self.pad(packed).sum(dim=1)


def layout_of(lengths: torch.Tensor, longest: int) -> JaggedLayout:
    """The layout of a batch's histories: without padding, or, while a model is exported, with it; see :class:`JaggedLayout`."""
    return (DenseLayout if torch.compiler.is_exporting() else JaggedLayout)(lengths, longest)
