"""Before the first batch: are the files those that the contract names, whole and of its columns?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from pyarrow import parquet as pq

from mian.contract import Day, SampleFile
from mian.stream.errors import StreamError
from mian.stream.filesystem import Storage
from mian.stream.read_plan import RowGroup
from mian.stream.schema import Column

_THREADS = 16  # footers are small, the wait for them is not


def check_rows(rows: int, batch_size: int, world_size: int, drop_last: bool, split: str) -> None:
    """Check that there is something to read in each step, from the contract alone.

    Raises:
        StreamError: no rows, or with ``drop_last`` fewer than one batch a rank.
    """
    if not rows:
        raise StreamError(f"split {split!r} has no rows: widen its days in the data configuration, and build them")
    if drop_last and rows < world_size * batch_size:
        raise StreamError(
            f"split {split!r} has {rows} rows, fewer than one batch of {batch_size} rows on each of {world_size} ranks: no step "
            "could be done; take a smaller batch size, fewer ranks, or more days"
        )


def check_files(days: Sequence[Day], storage: Storage, columns: Sequence[Column]) -> list[RowGroup]:
    """Check each file's size and footer against the contract.

    Args:
        days: the days whose files to check, in order.
        storage: where the files lie.
        columns: what will be read of them.

    Returns:
        The files' row groups in the contract's order, but for empty ones.

    Raises:
        StreamError: a file is missing, cut off or another than the contract names. The first such file in the contract's order is
            named, so that all ranks say the same.
    """
    files = [(day, file) for day in days for file in day.files]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="footers") as pool:
        checked = pool.map(lambda item: _check_file(item[0], item[1], storage, columns), files)
        return [group for groups in checked for group in groups]


def _check_file(day: Day, file: SampleFile, storage: Storage, columns: Sequence[Column]) -> list[RowGroup]:
    path = storage.path(file.path)
    remedy = f"rebuild day {day.day}"
    try:
        with storage.filesystem.open(path) as source:
            size = source.seek(0, 2)
            if size != file.bytes:
                raise StreamError(f"{path}: {size} bytes, the contract says {file.bytes}: it is cut off or was changed: {remedy}")
            source.seek(0)
            footer = pq.read_metadata(source)
    except FileNotFoundError as error:
        raise StreamError(f"{path}: no such file, the contract names it: {remedy}, or correct the path of the samples") from error
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())  # Arrow says some things on several lines
        raise StreamError(f"{path}: not a readable Parquet file ({said}): it is cut off or was changed: {remedy}") from error
    if footer.num_rows != file.rows:
        raise StreamError(f"{path}: {footer.num_rows} rows, the contract says {file.rows}: the file was changed: {remedy}")
    schema = footer.schema.to_arrow_schema()
    for column in columns:
        if column.name not in schema.names:
            raise StreamError(f"{path}: column {column.name!r} is missing, the contract names it: {remedy}")
        found = schema.field(column.name).type
        if not column.matches(found):
            raise StreamError(f"{path}: column {column.name!r} is {found}, the contract says {column.arrow_type}: {remedy}")
    sizes = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
    return [RowGroup(file.path, index, rows, day.day) for index, rows in enumerate(sizes) if rows]
