"""Row groups: from Parquet to arrays, with no pandas and no copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from petastorm.arrow_reader_worker import ArrowReaderWorker
from petastorm.workers_pool import EmptyResultError
from pyarrow import parquet as pq

from mian.stream.checksums import Checksums
from mian.stream.errors import StreamError
from mian.stream.read_plan import Piece
from mian.stream.resident import Part, parts_of
from mian.stream.schema import Column, Tensors
from mian.stream.windows import WindowRows, number_of_rows

_ROWS_AT_ONCE = 16384  # few enough to be in the processor's cache still when they are put into their places


class RowGroupCursor:
    """A row group that is decoded piece by piece, in order, by whichever thread has the next piece."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._row = 0
        self._failed = False
        self._parts: Iterator[Part] | None = None
        self._held: list[Part] = []

    def take(self, piece: Piece, before: int, parts: Callable[[int], Iterator[Part]]) -> Generator[Part, None, None]:
        """The rows of a piece, those between the piece before and it passed over.

        Args:
            piece: The rows of the row group to read.
            before: the row where the piece that is taken before this one stops; 0 for the first.
            parts: begins to decode the row group, so many rows at once.

        Returns:
            Parts of the piece; where they begin is counted from its first row. Nothing where an earlier piece failed, which was said.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._failed or self._row == before)
            if self._failed:
                return
        try:
            yield from self._taken(piece, parts)
        except BaseException:
            self._failed = True
            raise
        finally:
            with self._turn:
                self._row = piece.stop
                self._turn.notify_all()

    def _taken(self, piece: Piece, parts: Callable[[int], Iterator[Part]]) -> Iterator[Part]:
        if self._parts is None:
            pulls = -(-piece.rows // _ROWS_AT_ONCE)
            self._parts = parts(-(-piece.rows // pulls))
        held, self._held = self._held, []
        for part in chain(held, self._parts):
            yield from parts_of(piece, [part])
            end = part[0] + number_of_rows(part[1])
            if end > piece.stop:
                self._held = [part]
            if end >= piece.stop:
                break
        if piece.stop == piece.group.rows:
            next(self._parts, None)  # it counts the rows, and closes the file


@dataclass(frozen=True)
class PieceTask:
    """A piece of a row group to read.

    ``rows``: the window's, to put the piece's into. ``number``: of the piece in the window. ``before``: where the piece of the same row
    group that is read before it stops. ``checksums``: what is asked for a file before its rows are used.
    """

    rows: WindowRows
    number: int
    before: int
    cursor: RowGroupCursor
    columns: tuple[Column, ...]
    checksums: Checksums | None

    @property
    def piece(self) -> Piece:
        """The piece of a row group that was read."""
        return self.rows.read.window.pieces[self.number]

    @property
    def completes_window(self) -> bool:
        """Whether it is the window's last; results come in order, so that all others are in before it."""
        return self.number == len(self.rows.read.window.pieces) - 1


class RowGroupWorker(ArrowReaderWorker):  # type: ignore[misc]  # petastorm has no types
    """Petastorm's worker for a piece of a row group; puts its rows into their window and publishes the task that is done."""

    def process(self, piece_index: int, task: PieceTask) -> None:
        """Read one piece.

        Args:
            piece_index: which of Petastorm's pieces, which are row groups, it is of.
            task: what to do with it.

        Raises:
            StreamError: it cannot be read, is not what was written, or holds nulls or lists of another length; names the file, the
                row group and the column.
        """
        source = self._split_pieces[piece_index]
        group = task.piece.group
        place = f"{source.path}, row group {source.row_group}"
        remedy = f"rebuild day {group.day}"
        try:
            with closing(self._rows(source, task)) as parts:  # at once also after an error: others wait for their turn
                for first, arrays in parts:
                    task.rows.put(task.number, first, arrays)
            self.publish_func(task)
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())  # Arrow says some things on several lines
            raise StreamError(f"{place}: cannot be read ({said}): it is damaged or was changed: {remedy}") from error
        except StreamError as error:
            raise StreamError(f"{place}: {error}: {remedy}") from error
        except Exception as error:  # whatever it is, the consumer must know where it happened
            raise StreamError(f"{place}: {type(error).__name__}: {error}") from error

    def _rows(self, source: Any, task: PieceTask) -> Generator[Part, None, None]:
        def decode(rows_at_once: int) -> Iterator[Part]:
            return iter(self._local_cache.get(task.piece.group, lambda: self._parts(source, task, rows_at_once)))

        return task.cursor.take(task.piece, task.before, decode)

    def _parts(self, source: Any, task: PieceTask, rows_at_once: int) -> Iterator[Part]:
        group = task.piece.group
        if task.checksums is not None:
            task.checksums.check(group.path)
        rows = 0
        with self._filesystem.open(source.path) as opened:
            file = pq.ParquetFile(opened)
            found = file.metadata.row_group(source.row_group).num_rows
            if found != group.rows:
                raise StreamError(f"{found} rows, {group.rows} when the stream was set up: the file was changed")
            names = [column.name for column in task.columns]
            for part in file.iter_batches(rows_at_once, row_groups=[source.row_group], columns=names, use_threads=False):
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
