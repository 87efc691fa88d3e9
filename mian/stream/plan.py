"""Which rows a rank reads in an epoch, and in what order: arithmetic alone, no file is touched.

An epoch draws an order of the row groups and lays their rows end to end, each group's rows permuted: one sequence of all rows,
the same on every rank. A :class:`Share` says which spans of that sequence are a rank's; :func:`plan_reads` says which rows of
which row groups those are. A row group at the border of two ranks is read by both, each taking its own slice of the one
permutation, so no row is used twice and none is lost.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["sharded", "global"]
Span = tuple[int, int]
"""From the first row to before the last: ``(start, stop)``."""


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file: the file's path relative to the contract, the group's number in it, its day."""

    path: str
    index: int
    rows: int
    day: dt.date

    def __str__(self) -> str:
        return f"{self.path}, row group {self.index}"


@dataclass(frozen=True)
class Read:
    """The rows that a rank takes of one row group: spans of the group's permuted rows, ascending, none empty."""

    group: RowGroup
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(stop - start for start, stop in self.spans)


@dataclass(frozen=True)
class Leg:
    """A part of an epoch that is done: so many steps of so many ranks with batches of that size."""

    world_size: int
    batch_size: int
    steps: int


@dataclass(frozen=True)
class Share:
    """The part of an epoch's sequence of rows that is one rank's.

    ``sharded``: one run of neighboring rows a rank. With ``drop_last`` the runs are ``steps * batch_size`` rows each, and the
    tail of the sequence is left over; without, they differ by at most a row, and cover all.

    ``global``: each run of ``world_size * batch_size`` rows is one step, of which every rank takes its ``batch_size``: together
    the ranks see the batches that one rank with the whole batch size would. Without ``drop_last`` the short last run is shared
    out evenly.
    """

    rows: int
    batch_size: int
    rank: int
    world_size: int
    drop_last: bool
    order: Order

    @property
    def steps(self) -> int:
        """Batches of this rank; with ``drop_last`` the same on all ranks."""
        return -(-sum(stop - start for start, stop in self._runs()) // self.batch_size)

    @property
    def rows_left_over(self) -> int:
        """Rows of the sequence that no rank reads."""
        return self.rows - self._full_steps * self._global_batch if self.drop_last else 0

    def spans(self, first_step: int = 0) -> Iterator[Span]:
        """The rank's spans of the sequence from a step on, ascending, none empty."""
        skip = first_step * self.batch_size
        for start, stop in self._runs():
            skipped = min(skip, stop - start)
            skip -= skipped
            if start + skipped < stop:
                yield start + skipped, stop

    def spans_before(self, step: int) -> Iterator[Span]:
        """The rank's spans up to a step, ascending, none empty."""
        rows = step * self.batch_size
        for start, stop in self._runs():
            taken = min(rows, stop - start)
            rows -= taken
            if taken:
                yield start, start + taken

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    @property
    def _full_steps(self) -> int:
        return self.rows // self._global_batch

    def _runs(self) -> Iterator[Span]:
        if self.order == "sharded":
            yield self._even_part(0, self._full_steps * self._global_batch if self.drop_last else self.rows)
            return
        for step in range(self._full_steps):
            yield self._even_part(step * self._global_batch, (step + 1) * self._global_batch)
        if not self.drop_last:
            yield self._even_part(self._full_steps * self._global_batch, self.rows)

    def _even_part(self, start: int, stop: int) -> Span:
        rows = stop - start
        return start + self.rank * rows // self.world_size, start + (self.rank + 1) * rows // self.world_size


def remaining_spans(rows: int, legs: Iterable[Leg], order: Order) -> list[Span]:
    """What of an epoch's sequence no rank has used yet.

    Args:
        rows: of the sequence.
        legs: what was done, one after the other; each shared out what the ones before it had left.
        order: how it was shared out.

    Returns:
        Spans of the sequence, ascending and apart, none empty.
    """
    left = [(0, rows)] if rows else []
    for leg in legs:
        total = sum(stop - start for start, stop in left)
        ranks = range(leg.world_size)
        shares = [Share(total, leg.batch_size, rank, leg.world_size, True, order) for rank in ranks]
        used = sorted(span for share in shares for span in share.spans_before(leg.steps))
        begins, ends = [0, *(stop for _, stop in used)], [*(start for start, _ in used), total]
        left = within(left, [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end])
    return left


def within(outer: Sequence[Span], inner: Iterable[Span]) -> list[Span]:
    """Spans of the sequence that the outer spans make when they are laid end to end, as spans of what the outer ones are of.

    Args:
        outer: ascending and apart, none empty.
        inner: of their sequence, likewise.
    """
    found = []
    number, before = 0, 0  # the outer span that is looked at, and the rows of those before it
    for start, stop in inner:
        while start < stop:
            first, last = outer[number]
            if start >= before + last - first:
                before += last - first
                number += 1
                continue
            end = min(stop, before + last - first)
            found.append((first + start - before, first + end - before))
            start = end
    return found


def ordered_groups(groups: Sequence[RowGroup], seed: int, epoch: int) -> list[RowGroup]:
    """The row groups in the order that ``(seed, epoch)`` draws; where the samples lie and how they are listed does not matter."""
    return sorted(groups, key=lambda group: (_drawn("order", seed, epoch, group), group.path, group.index))


def row_seed(seed: int, epoch: int, group: RowGroup) -> int:
    """The seed of a row group's permutation, 63 bits: of ``(seed, epoch, path, row group)`` and nothing else."""
    return int.from_bytes(_drawn("rows", seed, epoch, group)[:8], "big") >> 1


def plan_reads(groups: Iterable[RowGroup], spans: Iterable[Span]) -> list[Read]:
    """Which rows of which row groups the spans are.

    Args:
        groups: the row groups in the order of the sequence.
        spans: of the sequence, ascending and apart, none empty; see :meth:`Share.spans`.

    Returns:
        The reads in order; their rows one after the other are the spans' rows.
    """
    remaining = iter(spans)
    span = next(remaining, None)
    reads = []
    begin = 0
    for group in groups:
        end = begin + group.rows
        taken = []
        while span is not None and span[0] < end:
            taken.append((max(span[0], begin) - begin, min(span[1], end) - begin))
            if span[1] > end:
                break  # the rest of it lies in the next group
            span = next(remaining, None)
        if taken:
            reads.append(Read(group, tuple(taken)))
        begin = end
    return reads


def _drawn(what: str, seed: int, epoch: int, group: RowGroup) -> bytes:
    return hashlib.sha256(json.dumps([what, seed, epoch, group.path, group.index]).encode()).digest()
