"""One row group: from Parquet to arrays, with no pandas and no copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from petastorm.arrow_reader_worker import ArrowReaderWorker
from petastorm.workers_pool import EmptyResultError
from pyarrow import parquet as pq

from mian.stream.checksums import Checksums
from mian.stream.columns import Column, Tensors
from mian.stream.errors import StreamError
from mian.stream.plan import RowGroup
from mian.stream.resident import Part
from mian.stream.windows import WindowRows

_ROWS_AT_ONCE = 16384  # few enough to be in the processor's cache still when they are put into their places


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
            for first, arrays in self._local_cache.get(task.group, lambda: self._parts(piece, task)):
                task.rows.put(task.number, first, arrays)
            self.publish_func(task)
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())  # Arrow says some things on several lines
            raise StreamError(f"{place}: cannot be read ({said}): it is damaged or was changed: {remedy}") from error
        except StreamError as error:
            raise StreamError(f"{place}: {error}: {remedy}") from error
        except Exception as error:  # whatever it is, the consumer must know where it happened
            raise StreamError(f"{place}: {type(error).__name__}: {error}") from error

    def _parts(self, piece: Any, task: RowGroupTask) -> Iterator[Part]:
        if task.checksums is not None:
            task.checksums.check(task.group.path)
        rows = 0
        with self._filesystem.open(piece.path) as source:
            file = pq.ParquetFile(source)
            found = file.metadata.row_group(piece.row_group).num_rows
            if found != task.group.rows:
                raise StreamError(f"{found} rows, {task.group.rows} when the stream was set up: the file was changed")
            names = [column.name for column in task.columns]
            for part in file.iter_batches(_ROWS_AT_ONCE, row_groups=[piece.row_group], columns=names, use_threads=False):
                yield rows, {column.name: column_values(part.column(column.name), column, rows) for column in task.columns}
                rows += part.num_rows
        if rows != found:
            raise StreamError(f"{rows} rows come out of it, its footer says {found}: it is damaged")

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


def column_values(values: pa.Array, column: Column, first: int = 0) -> npt.NDArray[Any]:
    """A column of some rows of a row group as an array that shares its memory.

    Args:
        values: of :attr:`Column.arrow_type`, with N rows.
        column: what it must be.
        first: where in the row group the rows begin, for what errors say.

    Returns:
        Shape ``(N,)``, or ``(N, T)`` for a column of lists.

    Raises:
        StreamError: a null, or a list that is not of ``column.length`` entries.
    """
    if values.null_count:
        raise StreamError(f"column {column.name!r} holds a null in row {first + _first_null(values)}")
    if column.length is None:
        return _flat(values)
    lengths = np.diff(np.asarray(values.offsets))
    wrong = np.flatnonzero(lengths != column.length)
    if wrong.size:
        raise StreamError(
            f"column {column.name!r} holds a list of {lengths[wrong[0]]} entries in row {first + wrong[0]}, "
            f"the contract's history has {column.length}"
        )
    entries = values.flatten()
    if entries.null_count:
        row = first + _first_null(entries) // column.length
        raise StreamError(f"column {column.name!r} holds a null in the list of row {row}")
    return _flat(entries).reshape(len(values), column.length)


def _first_null(array: pa.Array) -> int:
    return int(array.is_null().index(True).as_py())


def _flat(array: pa.Array) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = array.to_numpy(zero_copy_only=True)
    return flat
