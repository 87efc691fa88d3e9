"""The stream: a split's samples as batches, for one rank of many."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import get_args

import pyarrow as pa

from mian.stream.batches import cut_batches, number_of_rows
from mian.stream.checks import check_files, check_groups, check_rows
from mian.stream.columns import columns_of
from mian.stream.errors import StreamError
from mian.stream.plan import Leg, Order, Share, Span, ordered_groups, plan_reads, remaining_spans, row_seed, within
from mian.stream.reader import RowGroupReader
from mian.stream.row_groups import RowGroupTask, Tensors
from mian.stream.storage import Storage
from pipeline.contract import Contract


class SampleStream:
    """A split's samples as batches of tensors, for one rank.

    All ranks together read every row exactly once an epoch, but for the tail that ``drop_last`` leaves over. Batches depend on
    the contract, the epoch and the arguments here; never on ``workers`` or on timing. Only files that the contract names for the
    split's days are read; setting up the stream checks each one's size and footer against the contract, alike on every rank.

    Args:
        samples: the data set's folder: a local path, or a URL that fsspec opens.
        contract: what :func:`pipeline.contract.read_contract` read there.
        split: name of a split of the contract.
        batch_size: rows of a batch on this rank.
        rank: which rank this is, from 0.
        world_size: how many ranks there are.
        seed: what the order of rows is drawn from, together with the epoch.
        shuffle: draw the order of row groups, and of rows in each, anew in each epoch; else files come in the contract's order,
            rows in the file's.
        drop_last: leave over the tail of the epoch's rows (fewer than ``world_size * batch_size``), so that each batch is full
            and each rank does the same number of steps. Else the last batch may be short, and the ranks' steps may differ.
        order: ``sharded``: each rank reads its own run of row groups. ``global``: every rank reads all row groups and takes its
            part of each global batch, so that the global batches do not depend on the number of ranks, at the cost of reading
            ``world_size`` times as much.
        columns: which columns to read, in order; None for all fields, ``behavior_length``, ``label``, ``user_key`` and ``time``.
            Columns of strings cannot be read.
        workers: threads that read row groups; at most ``workers + 2`` row groups are in memory ahead of the consumer.

    Attributes:
        rows: rows of the split, over all ranks.
        steps: batches of an epoch on this rank; with ``drop_last`` the same on all ranks. Known from the contract alone.
        rows_left_over: rows that ``drop_last`` leaves over; others in each epoch where ``shuffle`` is set.

    Raises:
        StreamError: the samples are not what the contract says, there are fewer row groups than ranks, no full step, or a column
            cannot be read.
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
        drop_last: bool = True,
        order: Order = "sharded",
        columns: Sequence[str] | None = None,
        workers: int = 2,
    ) -> None:
        if batch_size < 1 or workers < 1 or world_size < 1:
            raise ValueError(f"batch_size {batch_size}, workers {workers} and world_size {world_size} must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0 to {world_size - 1}, world_size is {world_size}")
        if order not in get_args(Order):
            raise ValueError(f"order {order!r} is none of {', '.join(get_args(Order))}")
        self._days = contract.split(split)
        self.rows = sum(file.rows for day in self._days for file in day.files)
        check_rows(self.rows, batch_size, world_size, drop_last, split)
        self._share = Share(self.rows, batch_size, rank, world_size, drop_last, order)
        self.steps = self._share.steps
        self.rows_left_over = self._share.rows_left_over

        self._seed = seed
        self._shuffle = shuffle
        self._workers = workers
        self._columns = columns_of(contract, columns)
        self._storage = Storage.at(samples)
        self._groups = check_files(self._days, self._storage, self._columns)
        check_groups(self._groups, world_size, split)

    def steps_after(self, legs: Sequence[Leg]) -> int:
        """Batches on this rank of what is left of an epoch when parts of it are done; see :meth:`epoch`."""
        return self._share_after(legs)[0].steps

    def epoch(self, number: int, first_step: int = 0, legs: Sequence[Leg] = ()) -> Generator[Tensors, None, None]:
        """The batches of an epoch.

        Reading begins with the first batch. Its threads end with the last one, with an error, or when the generator is closed: by
        leaving the loop that holds it, or surely with :func:`contextlib.closing`.

        Args:
            number: which epoch, from 0; the same number gives the same batches.
            first_step: the step to begin with, to go on where a run was stopped; row groups before it are not read.
            legs: what other numbers of ranks, or with batches of another size, have done of the epoch. What they left is shared out
                anew, and ``first_step`` is a step of that.

        Returns:
            Batches ``{column: tensor}`` of this rank: int32, int64 or float32; shape ``(B,)``, or ``(B, T)`` for behavior
            columns. Batches of one row group are views of the same memory.

        Raises:
            ValueError: the epoch is negative, or ``first_step`` is not in 0 to :attr:`steps`.
            StreamError: while iterating: a file was changed, or holds nulls or lists of another length.
        """
        if number < 0:
            raise ValueError(f"epoch {number} is negative; epochs count from 0")
        steps = self.steps_after(legs)
        if not 0 <= first_step <= steps:
            raise ValueError(f"first_step {first_step} is not in 0 to {steps}, the steps of an epoch")
        return self._batches(self._tasks(number, first_step, legs))

    def _share_after(self, legs: Sequence[Leg]) -> tuple[Share, list[Span]]:
        """This rank's share of what is left of an epoch, and what that is."""
        left = remaining_spans(self.rows, legs, self._share.order)
        return dataclasses.replace(self._share, rows=sum(stop - start for start, stop in left)), left

    def _tasks(self, epoch: int, first_step: int, legs: Sequence[Leg]) -> list[RowGroupTask]:
        groups = ordered_groups(self._groups, self._seed, epoch) if self._shuffle else self._groups
        share, left = self._share_after(legs)
        reads = plan_reads(groups, within(left, share.spans(first_step)))
        return [
            RowGroupTask(read, self._columns, row_seed(self._seed, epoch, read.group) if self._shuffle else None)
            for read in reads
        ]

    def _reader(self, tasks: list[RowGroupTask]) -> RowGroupReader:
        try:
            return RowGroupReader(self._storage, tasks, self._workers)
        except (OSError, ValueError, pa.ArrowException) as error:
            error.__traceback__ = None  # its frames hold on to the threads in which Petastorm was reading footers
            check_files(self._days, self._storage, self._columns)  # says which file it is, and what to do
            raise StreamError(
                f"{self._storage.root}: cannot be opened ({error}), though its files are whole: try again"
            ) from error

    def _batches(self, tasks: list[RowGroupTask]) -> Generator[Tensors, None, None]:
        if not tasks:
            return
        rows = 0
        with self._reader(tasks) as reader:
            for batch in cut_batches(reader, self._share.batch_size):
                rows += number_of_rows(batch)
                yield batch
        planned = sum(task.read.rows for task in tasks)
        if rows != planned:
            raise StreamError(
                f"{self._storage.root}: {rows} rows came of {planned} in the plan of the epoch: report this as a bug"
            )
