"""Parquet files whose bytes depend on their rows alone.

Spark's own Parquet writer lists the encodings of a column in the order of a hash set, which changes from one JVM to the next: the same
rows get another checksum. So the Python workers make each file's bytes with pyarrow, one row group a file, and Spark stores them. It
has no writer for bytes, but its text writer puts the bytes of a string there as they are, with a separator behind each; a Parquet file
ends with the four bytes ``PAR1``, so the ``1`` is left to the separator.
"""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

LAST_BYTE = b"1"

#: A row a file.
FILES = "kind string, day date, file int, content string"


def file_row(kind: str, day: dt.date, file: int, table: pa.Table) -> pa.Table:
    """A row of :data:`FILES`: a table as a Parquet file of one row group."""
    sink = pa.BufferOutputStream()
    # without Spark's own metadata: a reader needs none
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd", row_group_size=max(1, table.num_rows))
    return pa.table(
        {
            "kind": pa.array([kind]),
            "day": pa.array([day], pa.date32()),
            "file": pa.array([file], pa.int32()),
            "content": _as_text(sink.getvalue()),
        }
    )


def write_files(files: DataFrame, folder: str) -> None:
    """Store files as ``folder/kind=.../day=.../file=.../``, one in each.

    Args:
        files: columns of :data:`FILES`.
        folder: where to.
    """
    files.write.partitionBy("kind", "day", "file").option("lineSep", LAST_BYTE.decode()).text(folder)


def _as_text(content: pa.Buffer) -> pa.Array:
    """The bytes, but for the last, as a string that is not looked at."""
    assert content[len(content) - 1 :].to_pybytes() == LAST_BYTE, "a Parquet file ends with PAR1"
    offsets = pa.array([0, len(content) - 1], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, content])
