"""Petastorm's reader, reading the windows of a plan in the plan's order."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from petastorm.cache import CacheBase
from petastorm.reader import Reader
from petastorm.unischema import UnischemaField

from mian.stream.checksums import Checksums
from mian.stream.errors import StreamError
from mian.stream.filesystem import Storage
from mian.stream.read_plan import RowGroup, WindowSlice
from mian.stream.row_groups import PieceTask, RowGroupCursor, RowGroupWorker
from mian.stream.schema import Column
from mian.stream.windows import WindowRows
from mian.stream.worker_pool import OrderedPool, OrderedVentilator

_AHEAD = 2  # pieces handed out beyond one a worker, so that no worker waits for the consumer


class RowGroupReader(Reader):  # type: ignore[misc]  # petastorm has no types
    """Iterates over windows as dicts of tensors, in the order of the reads. A context manager that ends its threads.

    Petastorm assigns row groups to ranks by ``row_group_index % shard_count`` and shuffles them in its ventilator. This class replaces
    both: the plan of the epoch decides which rows this rank reads, and in what order.

    Args:
        storage: where the files lie.
        reads: what to read, at least one slice. The pieces of a row group come in the order of its rows, each row at most once.
        columns: the columns to read.
        workers: the number of threads.
        cache: holds row groups that need not be read again; asked before a row group is read.
        checksums: compares a file with its checksum before the first row group of the file is used.

    Raises:
        StreamError: a row group has disappeared since the files were checked.
        OSError, pyarrow.ArrowException: a file has disappeared, or is not a Parquet file any more.
    """

    def __init__(
        self,
        storage: Storage,
        reads: Sequence[WindowSlice],
        columns: tuple[Column, ...],
        workers: int,
        cache: CacheBase | None = None,
        checksums: Checksums | None = None,
    ) -> None:
        # Before Petastorm's set-up, which calls the two methods below.
        self._storage = storage
        self._tasks = []
        cursors: dict[RowGroup, RowGroupCursor] = defaultdict(RowGroupCursor)
        stops: dict[RowGroup, int] = defaultdict(int)
        for rows in map(WindowRows, reads):
            for number, piece in enumerate(rows.read.window.pieces):
                group = piece.group
                self._tasks.append(PieceTask(rows, number, stops[group], cursors[group], columns, checksums))
                stops[group] = piece.stop
        # The whole of the window after the one that is being consumed, at least.
        self._ahead = max(workers + _AHEAD, max(len(read.window.pieces) for read in reads))
        paths = list(dict.fromkeys(storage.path(task.piece.group.path) for task in self._tasks))
        # Given as strings, fields would be regular expressions, and an unknown one would be left out in silence.
        fields = [UnischemaField(column.name, None, (), None, False) for column in columns]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # on pyarrow's older data sets, which Petastorm is built on
            super().__init__(
                storage.filesystem,
                paths,
                schema_fields=fields,
                worker_class=RowGroupWorker,
                reader_pool=OrderedPool(workers),
                cache=cache,
                num_epochs=1,
                shuffle_row_groups=False,
                is_batched_reader=True,
            )

    def _filter_row_groups(self, dataset: Any, row_groups: Sequence[Any], *args: Any) -> tuple[list[int], None]:
        """Where the tasks' row groups are among Petastorm's pieces, in the order of the tasks."""
        indexes = {(piece.path, piece.row_group): index for index, piece in enumerate(row_groups)}
        found = []
        for task in self._tasks:
            group = task.piece.group
            place = (self._storage.path(group.path), group.index)
            if place not in indexes:
                raise StreamError(f"{place[0]}: row group {group.index} is gone: the file was changed: rebuild day {group.day}")
            found.append(indexes[place])
        return found, None

    def _create_ventilator(self, row_group_indexes: list[int], *args: Any) -> OrderedVentilator:
        items = [{"piece_index": index, "task": task} for index, task in zip(row_group_indexes, self._tasks, strict=True)]
        return OrderedVentilator(self._workers_pool.ventilate, items, self._ahead)
