"""Parquet files whose bytes depend on their rows alone.

Spark's own Parquet writer lists the encodings of a column in the order of a hash set, which changes from one JVM to the next: the same
rows get another checksum. So the Python workers make each file's bytes with pyarrow, one row group a file, and Spark stores them. It
has no writer for bytes, but its text writer puts the bytes of a string there as they are, with a separator behind each; a Parquet file
ends with the four bytes ``PAR1``, so the ``1`` is left to the separator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

LAST_BYTE = b"1"


def write_files(frame: DataFrame, folder: str) -> None:
    """Write a Parquet file of one row group for each value of the columns ``day`` and ``file``, in ``folder/day=.../file=.../``.

    Args:
        frame: partitioned by ``day`` and ``file``, and sorted by them within partitions; rows keep their order.
        folder: where to.
    """
    contents = frame.mapInArrow(_contents, "day date, file int, content string")
    # the plan has no order of its own any more; without one Spark sorts by the partition columns, a file being one row here
    contents.write.partitionBy("day", "file").option("lineSep", LAST_BYTE.decode()).text(folder)


def _contents(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for (day, file), parts in groupby(_slices(batches), key=lambda part: part[0]):
        table = pa.Table.from_batches([batch for _, batch in parts]).combine_chunks()
        yield pa.RecordBatch.from_pydict(
            {"day": pa.array([day], pa.date32()), "file": pa.array([file], pa.int32()), "content": _as_text(_serialized(table))}
        )


def _slices(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[tuple[object, object], pa.RecordBatch]]:
    """Batches cut where ``day`` or ``file`` changes, without these two columns."""
    for batch in batches:
        runs = pa.compute.run_end_encode(
            pa.compute.binary_join_element_wise(
                batch.column("day").cast(pa.string()), batch.column("file").cast(pa.string()), " "
            )
        )
        rest = batch.select([name for name in batch.schema.names if name not in ("day", "file")])
        start = 0
        for end in runs.run_ends.to_pylist():
            key = (batch.column("day")[start].as_py(), batch.column("file")[start].as_py())
            yield key, rest.slice(start, end - start)
            start = end


def _serialized(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # without Spark's own metadata: a reader needs none
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd", row_group_size=max(1, table.num_rows))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _as_text(content: bytes) -> pa.Array:
    """The bytes, but for the last, as a string that is not looked at."""
    assert content.endswith(LAST_BYTE), "a Parquet file ends with PAR1"
    kept = content[:-1]
    offsets = pa.array([0, len(kept)], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(kept)])
