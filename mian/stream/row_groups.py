"""One row group: from Parquet to tensors, with no pandas and no copy but that of the permutation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from petastorm.arrow_reader_worker import ArrowReaderWorker
from petastorm.workers_pool import EmptyResultError
from pyarrow import parquet as pq

from mian.stream.columns import Column
from mian.stream.errors import StreamError
from mian.stream.plan import Read

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class RowGroupTask:
    """A row group to read: which of its rows, which columns, and the seed of its permutation (None: as they lie in the file)."""

    read: Read
    columns: tuple[Column, ...]
    seed: int | None


class RowGroupWorker(ArrowReaderWorker):  # type: ignore[misc]  # petastorm has no types
    """Petastorm's worker for a row group; publishes one dict of tensors, of shape ``(rows,)`` or ``(rows, T)``."""

    def process(self, piece_index: int, task: RowGroupTask) -> None:
        """Read one row group.

        Args:
            piece_index: which of Petastorm's pieces it is.
            task: what to take of it.

        Raises:
            StreamError: it cannot be read, or holds nulls or lists of another length; names the file, the row group and the
                column.
        """
        piece = self._split_pieces[piece_index]
        group = task.read.group
        place = f"{piece.path}, row group {piece.row_group}"
        try:
            with self._filesystem.open(piece.path) as source:
                table = pq.ParquetFile(source).read_row_group(
                    piece.row_group, columns=[column.name for column in task.columns], use_threads=False
                )
            if table.num_rows != group.rows:
                raise StreamError(f"{table.num_rows} rows, {group.rows} when the stream was set up: the file was changed")
            tensors = {column.name: column_to_tensor(table.column(column.name), column) for column in task.columns}
            self.publish_func(taken_rows(tensors, task))
        except (OSError, pa.ArrowException) as error:
            raise StreamError(
                f"{place}: cannot be read ({error}): it is damaged or was changed: rebuild day {group.day}"
            ) from error
        except StreamError as error:
            raise StreamError(f"{place}: {error}: rebuild day {group.day}") from error
        except Exception as error:  # whatever it is, the consumer must know where it happened
            raise StreamError(f"{place}: {type(error).__name__}: {error}") from error

    @staticmethod
    def new_results_queue_reader() -> _Results:
        """How Petastorm's reader takes what the workers publish."""
        return _Results()


class _Results:
    """Hands on what the workers published, as it is."""

    batched_output = True

    def read_next(self, pool: Any, schema: Any, ngram: Any) -> Tensors:
        try:
            tensors: Tensors = pool.get_results()
        except EmptyResultError:
            raise StopIteration from None
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


def taken_rows(tensors: Tensors, task: RowGroupTask) -> Tensors:
    """The rows of a row group that a task takes, in their order.

    Args:
        tensors: the whole row group.
        task: its seed permutes the rows, then its spans are taken.

    Returns:
        Shape ``(task.read.rows, ...)``; views where the rows are neighbors and not permuted, else one copy.
    """
    if task.seed is None:
        return {name: _spans(tensor, task.read.spans) for name, tensor in tensors.items()}
    permutation = torch.randperm(task.read.group.rows, generator=torch.Generator().manual_seed(task.seed))
    rows = _spans(permutation, task.read.spans)
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


def _spans(tensor: torch.Tensor, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
    parts = [tensor[start:stop] for start, stop in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _flat_tensor(array: pa.Array, dtype: torch.dtype) -> torch.Tensor:
    if not len(array):
        return torch.empty(0, dtype=dtype)
    buffer = array.buffers()[1]
    if not buffer.is_mutable:  # torch has no read-only tensors; what was just read from Parquet is mutable
        return torch.from_numpy(array.to_numpy(zero_copy_only=False).copy())
    return torch.frombuffer(buffer, dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)
