"""From raw values to what the model reads; the same code in the Spark workers and in the served model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contract.document import Field, NumericTransform

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2


class Encoder:
    """Encodes columns of raw values.

    Args:
        vocabularies: for each vocabulary its values in the order of their ids: the first is id 2.
    """

    def __init__(self, vocabularies: Mapping[str, pa.Array]) -> None:
        self._ids = {
            name: {value: index + FIRST_ID for index, value in enumerate(values.to_pylist())}
            for name, values in vocabularies.items()
        }

    def encode(self, field: Field, values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32] | npt.NDArray[np.float32]:
        """Encode a column of single values (flatten a list column first).

        Args:
            field: which field the column is of.
            values: raw values, shape ``(N,)``: anything that casts to string or to a number; nulls are allowed.

        Returns:
            Shape ``(N,)``: int32 ids, or float32 numbers.

        Raises:
            pyarrow.ArrowInvalid: a numeric field holds text that is no number.
        """
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if field.vocabulary is not None:
            return self._encode_ids(field.vocabulary, values)
        assert field.transform is not None
        return apply_transform(field.transform, values)

    def _encode_ids(self, vocabulary: str, values: pa.Array) -> npt.NDArray[np.int32]:
        table = self._ids[vocabulary]
        encoded = values.cast(pa.string()).dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        ids = np.fromiter((table.get(value, UNKNOWN_ID) for value in distinct), np.int32, len(distinct))
        ids = np.append(ids, np.int32(UNKNOWN_ID))  # nulls point here
        indices: npt.NDArray[np.int32] = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        return ids.take(indices)


def transformed(kind: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A numeric field's ``f(x)`` before it is standardized; see :class:`NumericTransform`."""
    return np.sign(values) * np.log1p(np.abs(values)) if kind == "log" else values


def apply_transform(transform: NumericTransform, values: pa.Array) -> npt.NDArray[np.float32]:
    """Transform a numeric column of shape ``(N,)`` to float32; nulls, NaN and infinities become 0, the training mean."""
    raw = pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
    scaled = (transformed(transform.kind, raw) - transform.mean) / transform.std
    return np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)


def vocabulary_to_parquet(values: pa.Array, counts: pa.Array, file: BinaryIO) -> None:
    """Write a vocabulary, values in the order of their ids."""
    table = pa.table({"value": values.cast(pa.string()), "count": counts.cast(pa.int64())})
    pq.write_table(table, file, compression="zstd")


def vocabulary_from_parquet(file: BinaryIO) -> pa.Table:
    """Read a vocabulary: columns ``value`` (string) and ``count`` (int64), in the order of their ids."""
    return pq.read_table(file, columns=["value", "count"]).combine_chunks()
