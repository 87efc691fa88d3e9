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

#: A column of text as numbers into its values, -1 for null; or of numbers.
Column = tuple[npt.NDArray[np.int32], pa.Array] | npt.NDArray[np.float64]

_AGES = b"ages"


def text_column(values: pa.ChunkedArray | pa.Array) -> Column:
    """A column of text as numbers and the values that they stand for."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = array.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), encoded.dictionary


def taken(column: Column, rows: IntArray) -> pa.Array:
    """Some rows of a column; of text with the values that they use, or few others. -1 is a row of nulls."""
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
    """A column of :func:`taken` with numbers of 32 bits, so that those of several blobs are of one type."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)


def pack(columns: Mapping[str, pa.Array], ages: IntArray) -> bytes:
    """The bytes of a blob; ``ages`` counts its behaviors by whole days before their impression."""
    table = pa.table(dict(columns)).replace_schema_metadata({_AGES: json.dumps(ages.tolist()).encode()})
    return ipc_bytes(table)


def unpack(content: bytes | pa.Buffer) -> tuple[pa.Table, IntArray]:
    """The table of a blob, and the ages of its behaviors."""
    table = ipc_table(content)
    return table, np.array(json.loads(table.schema.metadata[_AGES]), np.int64)
