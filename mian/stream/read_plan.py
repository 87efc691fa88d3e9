"""Which rows a rank reads in an epoch, and in what order: arithmetic alone, no file is touched.

An epoch draws an order of the row groups and cuts it into blocks of neighbors. A block is cut into windows crosswise: each window has
a piece of every row group of the block, and its rows are permuted together. So a window mixes as many days as a block has, with the
memory of a few row groups: a row group is decoded once, a piece for each window, and stays open meanwhile.

The windows laid end to end are one sequence of all rows, the same on every rank. A :class:`~mian.stream.sharding.RankShard` says which
spans of it are a rank's; :func:`plan_slices` says which rows of which windows those are. For each rank, a block begins at the row
group in which the rank's rows begin. A window at the border of two ranks is read by both. Each takes its own slice of the same
permutation, so no row is used twice and none is lost.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from mian.seeds import mixed_seed
from mian.stream.sharding import Span


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file: the file's path relative to the contract, the group's number in it, its day."""

    path: str
    index: int
    rows: int
    day: dt.date


@dataclass(frozen=True)
class Piece:
    """Neighboring rows of a row group, from ``start`` to before ``stop``."""

    group: RowGroup
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return self.stop - self.start


@dataclass(frozen=True)
class Window:
    """Pieces of row groups whose rows are permuted together by a seed; without one they come as they lie in the files."""

    pieces: tuple[Piece, ...]
    seed: int | None

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True)
class WindowSlice:
    """The rows that a rank takes of one window: spans of the window's permuted rows, ascending, none empty."""

    window: Window
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(stop - start for start, stop in self.spans)


def windows_in_order(groups: Iterable[RowGroup]) -> list[Window]:
    """Each row group a window of its own, nothing permuted."""
    return [Window((Piece(group, 0, group.rows),), None) for group in groups]


def shuffled_windows(
    groups: Sequence[RowGroup],
    size: int,
    mixed: int,
    seed: int,
    epoch: int,
    dealt_once: bool = False,
    borders: Iterable[int] = (),
) -> list[Window]:
    """The windows of an epoch, in order.

    Args:
        groups: all row groups, at least one; how they are listed and where the samples lie does not matter.
        size: a window has the rows of so many row groups at most; the windows of a block are as alike as can be.
        mixed: a window has rows of so many row groups at most, or of ``size`` where that is more.
        seed: what the order is drawn from, with the epoch.
        epoch: from 0.
        dealt_once: the order of the row groups is drawn from the seed alone, so that every epoch has the same windows; the
            permutation of their rows is still the epoch's.
        borders: rows of the sequence where ranks begin, ascending. A block begins at the last row group that begins no later.
    """
    order = _ordered(groups, seed, None if dealt_once else epoch)
    begins = [0, *accumulate(group.rows for group in order)]
    cuts = sorted({0, len(order), *(bisect_right(begins, border) - 1 for border in borders)})
    windows = []
    for first, last in pairwise(cuts):
        for block in _alike(order[first:last], max(size, mixed)):
            count = -(-len(block) // size)
            # from another remainder in each row group, so that those of few rows do not all end up in one window
            cuts_of = [
                [(number * each.rows + place % count) // count for number in range(count + 1)] for place, each in enumerate(block)
            ]
            for number in range(count):
                pieces = (Piece(each, *rows[number : number + 2]) for each, rows in zip(block, cuts_of, strict=True))
                windows.append(tuple(piece for piece in pieces if piece.rows))
    return [Window(pieces, window_seed(seed, epoch, pieces)) for pieces in windows if pieces]


def window_seed(seed: int, epoch: int, pieces: Iterable[Piece]) -> int:
    """The seed of a window's permutation, 63 bits: of ``(seed, epoch)``, paths, row groups and first rows, and nothing else."""
    names = [name for piece in pieces for name in (piece.group.path, piece.group.index, piece.start)]
    return mixed_seed("rows", seed, epoch, *names)


def plan_slices(windows: Iterable[Window], spans: Iterable[Span]) -> list[WindowSlice]:
    """Which rows of which windows the spans are.

    Args:
        windows: in the order of the sequence.
        spans: of the sequence, ascending and apart, none empty; see :meth:`~mian.stream.sharding.RankShard.spans`.

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
            reads.append(WindowSlice(window, tuple(taken)))
        begin = end
    return reads


def _ordered(groups: Iterable[RowGroup], seed: int, epoch: int | None) -> list[RowGroup]:
    return sorted(groups, key=lambda group: (_drawn("order", seed, epoch, group.path, group.index), group.path, group.index))


def _alike(groups: Sequence[RowGroup], size: int) -> list[Sequence[RowGroup]]:
    """Neighbors together, ``size`` at most, in as few parts as can be, which differ by one at most."""
    count = -(-len(groups) // size)
    return [groups[number * len(groups) // count : (number + 1) * len(groups) // count] for number in range(count)]


def _drawn(*values: str | int | None) -> bytes:
    return hashlib.sha256(json.dumps(values).encode()).digest()
