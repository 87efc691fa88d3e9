"""Which part of an epoch is a rank's: arithmetic on positions in one sequence of all rows.

A :class:`RankShard` says which spans of the sequence are a rank's. What is left of an epoch that other numbers of ranks, or batches of
another size, have begun is a sequence again, and shared out likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["sharded", "global"]
Span = tuple[int, int]
"""From the first row to before the last: ``(start, stop)``."""


@dataclass(frozen=True)
class EpochSegment:
    """A part of an epoch that is done: so many steps of so many ranks with batches of that size."""

    world_size: int
    batch_size: int
    steps: int


@dataclass(frozen=True)
class RankShard:
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
    def borders(self) -> list[int]:
        """Where the runs of the ranks begin, ascending; none in ``global`` order, in which every rank reads everything."""
        if self.order == "global":
            return []
        rows = self._full_steps * self._global_batch if self.drop_last else self.rows
        return [rank * rows // self.world_size for rank in range(self.world_size)]

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


def remaining_spans(rows: int, segments: Iterable[EpochSegment], order: Order) -> list[Span]:
    """What of an epoch's sequence no rank has used yet.

    Args:
        rows: of the sequence.
        segments: what was done, one after the other; each shared out what the ones before it had left.
        order: how it was shared out.

    Returns:
        Spans of the sequence, ascending and apart, none empty.
    """
    left = [(0, rows)] if rows else []
    for segment in segments:
        total = sum(stop - start for start, stop in left)
        ranks = range(segment.world_size)
        shares = [RankShard(total, segment.batch_size, rank, segment.world_size, True, order) for rank in ranks]
        used = sorted(span for share in shares for span in share.spans_before(segment.steps))
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
