"""The stream: a split's samples as batches, for one rank of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Literal, get_args

import pyarrow as pa

from mian.contract import Contract
from mian.stream.batches import cut_batches
from mian.stream.checksums import Checksums
from mian.stream.errors import StreamError
from mian.stream.file_checks import check_files, check_rows
from mian.stream.filesystem import Storage
from mian.stream.read_plan import WindowSlice, plan_slices, shuffled_windows, windows_in_order
from mian.stream.reader import RowGroupReader
from mian.stream.resident import Resident
from mian.stream.schema import Tensors, columns_of
from mian.stream.sharding import EpochSegment, Order, RankShard, Span, remaining_spans, within
from mian.stream.windows import number_of_rows

Verify = Literal["never", "epoch"]


class SampleStream:
    """A split's samples as batches of tensors, for one rank.

    All ranks together read every row exactly once an epoch, except for the last rows, which ``drop_last`` leaves out. Batches depend
    on the contract, the epoch and the arguments here, but never on ``workers``, ``verify`` or timing. Only files that the contract
    names for the days of the split are read. Setting up the stream compares the size and the footer of each of these files with the
    contract, on every rank.

    Args:
        samples: the data set's folder: a local path, or a URL that fsspec opens.
        contract: what :func:`mian.contract.read_contract` read there.
        split: name of a split of the contract.
        batch_size: rows of a batch on this rank.
        rank: which rank this is, from 0.
        world_size: how many ranks there are.
        seed: what the order of rows is drawn from, together with the epoch.
        shuffle: draw the order of the row groups, and the order of the rows in each window, anew in each epoch; otherwise files come
            in the contract's order, and rows in the order of their file.
        shuffle_window: a window has the rows of this many row groups at most; its rows are permuted together. A rank reads a window at
            the border of its shard whole, although it uses only a part of the window. So windows should be small beside a shard.
        mixed_row_groups: a window has one piece of each of this many row groups at most, which are neighbors in the epoch's order; of
            ``shuffle_window`` row groups if that is more. These row groups stay open until their last piece is read. For each of them,
            memory holds the columns as they are on disk, and one decoded page of each column.
        drop_last: leave out the last rows of the epoch (fewer than ``world_size * batch_size``), so that each batch is full and each
            rank does the same number of steps. Otherwise the last batch may be short, and the number of steps may differ between ranks.
        order: ``sharded``: each rank reads its own run of windows. ``global``: every rank reads all row groups and takes its
            part of each global batch, so that the global batches do not depend on the number of ranks, at the cost of reading
            ``world_size`` times as much.
        columns: which columns to read, in order; None for all fields, ``behavior_length``, ``label``, ``user_key`` and ``time``.
            Columns of strings cannot be read.
        workers: threads that read row groups. Besides the window in use, memory holds the pieces that are read ahead: as many pieces as
            the largest window has, and at least ``workers + 2``.
        resident: keep the decoded row groups of this rank in memory after their first reading, so that later epochs read no file. The
            memory holds all rows of the rank as tensors, the row groups at the borders of its shard whole, and the window in use.
            Row groups are assigned to windows once: each epoch has the same windows in the same order, and only the rows of each
            window are permuted anew. If another number of ranks began an epoch, rows that are not in this rank's memory are read
            from files. Only for the ``sharded`` order.
        verify: ``epoch``: compare the SHA-256 sum of each file that this rank reads with the contract once an epoch, before rows of the
            file are used. Nothing else finds bytes that changed inside a page. The files are read twice then. Files whose rows are in
            memory (``resident``) are not compared again.

    Attributes:
        rows: the number of rows of the split, over all ranks.
        steps: the number of batches of an epoch on this rank; with ``drop_last`` the same on all ranks. Known from the contract alone.
        rows_left_over: the number of rows that ``drop_last`` leaves out of an epoch. With ``shuffle``, each epoch leaves out others.

    Raises:
        StreamError: the samples are not what the contract says, there is no full step, or a column cannot be read.
        ContractError: the contract has no such split, or none of its days.
        ValueError: an argument is out of its range.

    Example:
        >>> stream = SampleStream("samples", read_contract("samples"), "train", batch_size=1024)
        >>> for epoch in range(2):
        ...     for batch in stream.epoch(epoch):
        ...         loss = model(batch)
    """

    def __init__(
        self,
        samples: str,
        contract: Contract,
        split: str,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        shuffle_window: int = 4,
        mixed_row_groups: int = 32,
        drop_last: bool = True,
        order: Order = "sharded",
        columns: Sequence[str] | None = None,
        workers: int = 2,
        resident: bool = False,
        verify: Verify = "never",
    ) -> None:
        counts = {"batch_size": batch_size, "workers": workers, "world_size": world_size}
        counts |= {"shuffle_window": shuffle_window, "mixed_row_groups": mixed_row_groups}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} {count} must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 to {world_size - 1}, world_size is {world_size}")
        if order not in get_args(Order):
            raise ValueError(f"order {order!r} is none of {', '.join(get_args(Order))}")
        if verify not in get_args(Verify):
            raise ValueError(f"verify {verify!r} is none of {', '.join(get_args(Verify))}")
        if resident and order != "sharded":
            raise ValueError(f"order {order!r} has every rank read everything: a shard that stays in memory needs 'sharded'")
        self._days = contract.split(split)
        self.rows = sum(file.rows for day in self._days for file in day.files)
        check_rows(self.rows, batch_size, world_size, drop_last, split)
        self._share = RankShard(self.rows, batch_size, rank, world_size, drop_last, order)
        self.steps = self._share.steps
        self.rows_left_over = self._share.rows_left_over

        self._seed = seed
        self._shuffle = shuffle
        self._shuffle_window = shuffle_window
        self._mixed_row_groups = mixed_row_groups
        self._workers = workers
        self._columns = columns_of(contract, columns)
        self._storage = Storage.at(samples)
        self._groups = check_files(self._days, self._storage, self._columns)
        self._verify = verify
        self._dealt_once = resident
        self._resident: Resident | None = None
        if resident:  # epochs differ in the order of rows alone, so that the first one tells the row groups of all
            self._resident = Resident(piece.group for read in self._reads(0) for piece in read.window.pieces)

    def steps_after(self, segments: Sequence[EpochSegment]) -> int:
        """Batches on this rank of what is left of an epoch when parts of it are done; see :meth:`epoch`."""
        return self._share_after(segments)[0].steps

    def epoch(self, number: int, first_step: int = 0, segments: Sequence[EpochSegment] = ()) -> Generator[Tensors, None, None]:
        """The batches of an epoch.

        Reading begins with the first batch. The reading threads end with the last batch, with an error, or when the generator is
        closed. Leaving the loop that holds the generator closes it; :func:`contextlib.closing` guarantees that.

        Args:
            number: which epoch, from 0; the same number gives the same batches.
            first_step: the step to begin with, to continue where a training was stopped; windows before that step are not read.
            segments: the parts of the epoch that are done already, with other numbers of ranks or other batch sizes. The rest of the
                epoch is divided among the ranks anew, and ``first_step`` is a step of this rest.

        Returns:
            Batches ``{column: tensor}`` of this rank: int32, int64 or float32; shape ``(B,)``, or ``(B, T)`` for behavior
            columns. Batches of one window are views of the same memory.

        Raises:
            ValueError: the epoch is negative, or ``first_step`` is not in 0 to :attr:`steps`.
            StreamError: while iterating: a file was changed, or holds nulls or lists of another length.
        """
        if number < 0:
            raise ValueError(f"epoch {number} is negative; epochs count from 0")
        steps = self.steps_after(segments)
        if not 0 <= first_step <= steps:
            raise ValueError(f"first_step {first_step} is not in 0 to {steps}, the steps of an epoch")
        return self._batches(self._reads(number, first_step, segments))

    def _share_after(self, segments: Sequence[EpochSegment]) -> tuple[RankShard, list[Span]]:
        """This rank's share of what is left of an epoch, and what that is."""
        left = remaining_spans(self.rows, segments, self._share.order)
        return dataclasses.replace(self._share, rows=sum(stop - start for start, stop in left)), left

    def _reads(self, epoch: int, first_step: int = 0, segments: Sequence[EpochSegment] = ()) -> list[WindowSlice]:
        if self._shuffle:
            size, mixed = self._shuffle_window, self._mixed_row_groups
            windows = shuffled_windows(self._groups, size, mixed, self._seed, epoch, self._dealt_once, self._borders(segments))
        else:
            windows = windows_in_order(self._groups)
        share, left = self._share_after(segments)
        return plan_slices(windows, within(left, share.spans(first_step)))

    def _borders(self, segments: Sequence[EpochSegment]) -> list[int]:
        """The rows of the epoch's sequence where the ranks begin that began the epoch."""
        first = self._share
        if segments:
            first = dataclasses.replace(first, world_size=segments[0].world_size, batch_size=segments[0].batch_size)
        return first.borders

    def _reader(self, reads: list[WindowSlice]) -> RowGroupReader:
        checksums = None
        if self._verify == "epoch":
            checksums = Checksums(self._storage, {file.path: file.sha256 for day in self._days for file in day.files})
        try:
            return RowGroupReader(self._storage, reads, self._columns, self._workers, self._resident, checksums)
        except (OSError, ValueError, pa.ArrowException) as error:
            error.__traceback__ = None  # its frames hold on to the threads in which Petastorm was reading footers
            check_files(self._days, self._storage, self._columns)  # says which file it is, and what to do
            raise StreamError(
                f"{self._storage.root}: cannot be opened ({error}), though its files are whole: try again"
            ) from error

    def _windows(self, reads: list[WindowSlice]) -> Generator[Tensors, None, None]:
        if self._resident is not None and self._resident.holds(reads):
            yield from self._resident.windows(reads)
        else:
            with self._reader(reads) as reader:
                yield from reader

    def _batches(self, reads: list[WindowSlice]) -> Generator[Tensors, None, None]:
        if not reads:
            return
        rows = 0
        with closing(self._windows(reads)) as windows:
            for batch in cut_batches(windows, self._share.batch_size):
                rows += number_of_rows(batch)
                yield batch
        planned = sum(read.rows for read in reads)
        if rows != planned:
            raise StreamError(
                f"{self._storage.root}: {rows} rows came of {planned} in the plan of the epoch: report this as a bug"
            )
