"""Which rows a rank reads in an epoch, and in what order: arithmetic alone, no file is touched.

An epoch draws an order of the row groups, cuts it into windows of neighbors, and permutes the rows of each window together. The
windows laid end to end are one sequence of all rows, the same on every rank, of which a :class:`~mian.stream.shares.Share` says
which spans are a rank's; :func:`plan_reads` says which rows of which windows those are. A window at the border of two ranks is read
by both, each taking its own slice of the one permutation, so no row is used twice and none is lost.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mian.seeds import mixed_seed
from mian.stream.shares import Span


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file: the file's path relative to the contract, the group's number in it, its day."""

    path: str
    index: int
    rows: int
    day: dt.date


@dataclass(frozen=True)
class Window:
    """Row groups whose rows are permuted together by a seed; without one they come as they lie in the files."""

    groups: tuple[RowGroup, ...]
    seed: int | None

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(group.rows for group in self.groups)


@dataclass(frozen=True)
class Read:
    """The rows that a rank takes of one window: spans of the window's permuted rows, ascending, none empty."""

    window: Window
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(stop - start for start, stop in self.spans)


def windows_in_order(groups: Iterable[RowGroup]) -> list[Window]:
    """Each row group a window of its own, nothing permuted."""
    return [Window((group,), None) for group in groups]


def shuffled_windows(groups: Sequence[RowGroup], size: int, seed: int, epoch: int, dealt_once: bool = False) -> list[Window]:
    """The windows of an epoch, in order.

    Args:
        groups: all row groups, at least one; how they are listed and where the samples lie does not matter.
        size: row groups of a window at most; the windows are as alike in number as can be.
        seed: what the order is drawn from, with the epoch.
        epoch: from 0.
        dealt_once: the order of the row groups is drawn from the seed alone, so that every epoch has the same windows; the
            permutation of their rows is still the epoch's.
    """
    order = _ordered(groups, seed, None if dealt_once else epoch)
    count = -(-len(order) // size)
    cuts = [number * len(order) // count for number in range(count + 1)]
    windows = [tuple(order[begin:end]) for begin, end in pairwise(cuts)]
    return [Window(window, window_seed(seed, epoch, window)) for window in windows]


def window_seed(seed: int, epoch: int, groups: Iterable[RowGroup]) -> int:
    """The seed of a window's permutation, 63 bits: of ``(seed, epoch)``, paths and row groups, and nothing else."""
    return mixed_seed("rows", seed, epoch, *_names(groups))


def plan_reads(windows: Iterable[Window], spans: Iterable[Span]) -> list[Read]:
    """Which rows of which windows the spans are.

    Args:
        windows: in the order of the sequence.
        spans: of the sequence, ascending and apart, none empty; see :meth:`~mian.stream.shares.Share.spans`.

    Returns:
        The reads in order; their rows one after the other are the spans' rows.
    """
    remaining = iter(spans)
    span = next(remaining, None)
    reads = []
    begin = 0
    for window in windows:
        end = begin + window.rows
        taken = []
        while span is not None and span[0] < end:
            taken.append((max(span[0], begin) - begin, min(span[1], end) - begin))
            if span[1] > end:
                break  # the rest of it lies in the next window
            span = next(remaining, None)
        if taken:
            reads.append(Read(window, tuple(taken)))
        begin = end
    return reads


def _ordered(groups: Iterable[RowGroup], seed: int, epoch: int | None) -> list[RowGroup]:
    return sorted(groups, key=lambda group: (_drawn("order", seed, epoch, group.path, group.index), group.path, group.index))


def _names(groups: Iterable[RowGroup]) -> list[str | int]:
    return [name for group in groups for name in (group.path, group.index)]


def _drawn(*values: str | int | None) -> bytes:
    return hashlib.sha256(json.dumps(values).encode()).digest()
