"""One row group: from Parquet to tensors, with no pandas and no copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from petastorm.arrow_reader_worker import ArrowReaderWorker
from petastorm.workers_pool import EmptyResultError
from pyarrow import parquet as pq

from mian.stream.checksums import Checksums
from mian.stream.columns import Column, Tensors
from mian.stream.errors import StreamError
from mian.stream.plan import RowGroup
from mian.stream.windows import WindowRows


@dataclass(frozen=True)
class RowGroupTask:
    """A row group to read: the window's rows to put its own into, its number in the window, the columns, and the file's check."""

    rows: WindowRows
    number: int
    columns: tuple[Column, ...]
    checksums: Checksums | None

    @property
    def group(self) -> RowGroup:
        """The row group."""
        return self.rows.read.window.groups[self.number]

    @property
    def completes_window(self) -> bool:
        """Whether it is the window's last; results come in order, so that all others are in before it."""
        return self.number == len(self.rows.read.window.groups) - 1


class RowGroupWorker(ArrowReaderWorker):  # type: ignore[misc]  # petastorm has no types
    """Petastorm's worker for a row group; puts its rows into their window and publishes the task that is done."""

    def process(self, piece_index: int, task: RowGroupTask) -> None:
        """Read one row group.

        Args:
            piece_index: which of Petastorm's pieces it is.
            task: what to do with it.

        Raises:
            StreamError: it cannot be read, is not what was written, or holds nulls or lists of another length; names the file, the
                row group and the column.
        """
        piece = self._split_pieces[piece_index]
        place = f"{piece.path}, row group {piece.row_group}"
        remedy = f"rebuild day {task.group.day}"
        try:
            task.rows.put(task.number, self._local_cache.get(task.group, lambda: self._read(piece, task)))
            self.publish_func(task)
        except (OSError, pa.ArrowException) as error:
            raise StreamError(f"{place}: cannot be read ({error}): it is damaged or was changed: {remedy}") from error
        except StreamError as error:
            raise StreamError(f"{place}: {error}: {remedy}") from error
        except Exception as error:  # whatever it is, the consumer must know where it happened
            raise StreamError(f"{place}: {type(error).__name__}: {error}") from error

    def _read(self, piece: Any, task: RowGroupTask) -> Tensors:
        if task.checksums is not None:
            task.checksums.check(task.group.path)
        with self._filesystem.open(piece.path) as source:
            table = pq.ParquetFile(source).read_row_group(
                piece.row_group, columns=[column.name for column in task.columns], use_threads=False
            )
        if table.num_rows != task.group.rows:
            raise StreamError(f"{table.num_rows} rows, {task.group.rows} when the stream was set up: the file was changed")
        return {column.name: column_to_tensor(table.column(column.name), column) for column in task.columns}

    @staticmethod
    def new_results_queue_reader() -> _Windows:
        """How Petastorm's reader takes what the workers publish."""
        return _Windows()


class _Windows:
    """Hands on windows as they are complete."""

    batched_output = True

    def read_next(self, pool: Any, schema: Any, ngram: Any) -> Tensors:
        try:
            while not (task := pool.get_results()).completes_window:
                pass
        except EmptyResultError:
            raise StopIteration from None
        tensors: Tensors = task.rows.take()
        return tensors


def column_to_tensor(values: pa.ChunkedArray, column: Column) -> torch.Tensor:
    """A column of a row group as a tensor that shares its memory.

    Args:
        values: the column, of :attr:`Column.arrow_type`, with N rows.
        column: what it must be.

    Returns:
        Shape ``(N,)``, or ``(N, T)`` for a column of lists.

    Raises:
        StreamError: a null, or a list that is not of ``column.length`` entries.
    """
    array = values.chunk(0) if values.num_chunks == 1 else pa.concat_arrays(values.chunks)
    if array.null_count:
        raise StreamError(f"column {column.name!r} holds {array.null_count} nulls")
    if column.length is None:
        return _flat_tensor(array, column.dtype)
    lengths = np.diff(np.asarray(array.offsets))
    wrong = np.flatnonzero(lengths != column.length)
    if wrong.size:
        raise StreamError(
            f"column {column.name!r} holds a list of {lengths[wrong[0]]} entries in row {wrong[0]} ({wrong.size} such rows), "
            f"the contract's history has {column.length}"
        )
    entries = array.flatten()
    if entries.null_count:
        raise StreamError(f"column {column.name!r} holds {entries.null_count} nulls in its lists")
    return _flat_tensor(entries, column.dtype).reshape(len(array), column.length)


def _flat_tensor(array: pa.Array, dtype: torch.dtype) -> torch.Tensor:
    if not len(array):
        return torch.empty(0, dtype=dtype)
    buffer = array.buffers()[1]
    if not buffer.is_mutable:  # torch has no read-only tensors; what was just read from Parquet is mutable
        return torch.from_numpy(array.to_numpy(zero_copy_only=False).copy())
    return torch.frombuffer(buffer, dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)
