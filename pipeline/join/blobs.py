"""Raw samples of one file, packed: what travels from the join to the encoding.

A blob is an Arrow table of some rows, compressed. Text is dictionary-encoded with the values that the blob uses, behaviors are lists of
their own lengths, so a row takes a tenth of what its raw columns would, and the JVM between the two Python steps moves bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays import IntArray
from pipeline.io.arrow_ipc import ipc_bytes, ipc_table

#: A column of N rows. Text: codes, int32 ``(N,)``, -1 for null, and the value of each code. Numbers: float64 ``(N,)``.
Column = tuple[npt.NDArray[np.int32], pa.Array] | npt.NDArray[np.float64]

_AGES = b"ages"


def text_column(values: pa.ChunkedArray | pa.Array) -> Column:
    """Turn a column of text into codes.

    Args:
        values: N strings or nulls.

    Returns:
        The codes, int32 ``(N,)``, -1 for null, and the value of each code.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = array.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), encoded.dictionary


def taken(column: Column, rows: IntArray) -> pa.Array:
    """Copy rows of a column into an Arrow array.

    Args:
        column: A column of N rows.
        rows: Row numbers from 0 to N - 1, int64 ``(M,)``, in any order, repeated or not. -1 gives null in a column of text, and NaN in
            a column of numbers.

    Returns:
        M values. Numbers are float64. Text is a dictionary array whose codes have the smallest signed type of up to 32 bits that they
        fit in. Its dictionary has only the values that these rows use, or all values of the column where those are at most M / 2.
    """
    if isinstance(column, np.ndarray):
        return pa.array(np.where(rows < 0, np.nan, column[rows]) if len(column) else np.full(len(rows), np.nan))
    numbers, values = column
    chosen = numbers[rows] if len(numbers) else np.full(len(rows), -1, np.int32)
    if len(rows) and rows.min() < 0:
        chosen[rows < 0] = -1
    if 2 * len(values) > len(chosen):
        used = np.zeros(len(values) + 1, np.bool_)
        used[chosen] = True  # the last place is that of nulls
        used[-1] = False
        values = values.take(pa.array(np.flatnonzero(used)))
        chosen = np.append(np.cumsum(used[:-1], dtype=np.int32) - 1, np.int32(-1))[chosen]
    small = next(kind for kind in (np.int8, np.int16, np.int32) if len(values) <= np.iinfo(kind).max)
    missing = chosen < 0
    return pa.DictionaryArray.from_arrays(pa.array(chosen.astype(small), mask=missing if missing.any() else None), values)


def widened(column: pa.Array) -> pa.Array:
    """Give a column of :func:`taken` codes of 32 bits, so that the columns of several blobs have one type.

    Args:
        column: M values.

    Returns:
        The same M values; a column of numbers is returned as it is.
    """
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)


def pack(columns: Mapping[str, pa.Array], ages: IntArray) -> bytes:
    """Make a blob.

    Args:
        columns: The columns of the blob by name, M values each.
        ages: How old the behaviors of the blob are, int64 ``(D,)``: ``ages[d]`` of them happened d whole days before their impression.

    Returns:
        An Arrow IPC stream with the columns; its metadata holds ``ages``.
    """
    table = pa.table(dict(columns)).replace_schema_metadata({_AGES: json.dumps(ages.tolist()).encode()})
    return ipc_bytes(table)


def unpack(content: bytes | pa.Buffer) -> tuple[pa.Table, IntArray]:
    """Read a blob.

    Args:
        content: What :func:`pack` returned.

    Returns:
        The columns as a table of M rows, and ``ages`` as :func:`pack` took it.

    Raises:
        pyarrow.ArrowInvalid: The content is not an Arrow IPC stream, or is cut off.
    """
    table = ipc_table(content)
    return table, np.array(json.loads(table.schema.metadata[_AGES]), np.int64)
