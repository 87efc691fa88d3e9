"""From a DataFrame of raw values to the columns that a model reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from pipeline.contract import Contract, Encoder, Field
from pipeline.contract.canonical import canonical_text, canonical_value
from pipeline.contract.document import LENGTH_COLUMN
from pipeline.contract.encoder import padded, padding

Column = npt.NDArray[np.int32] | npt.NDArray[np.float32]
Columns = dict[str, Column]


class ServingInputError(ValueError):
    """The rows to predict are not what the model takes: a missing column, a wrong type, lists of different lengths."""


class RowEncoder:
    """Encodes raw rows as the samples were.

    A row has a column a field, named as the contract names it. Ids are text, or numbers and booleans with the text that they had in
    the logs, see :func:`pipeline.contract.canonical.canonical_text`; numbers are numbers. Either may be missing (None, NaN), which is an
    unknown id or the training mean. A behavior column has a list a row, the most recent behavior first and of any
    length; those beyond the history's length are left out. None is an empty history.

    Args:
        contract: what the samples are.
        vocabularies: for each vocabulary that is a table its values in the order of their ids.
    """

    def __init__(self, contract: Contract, vocabularies: Mapping[str, pa.Array]) -> None:
        self._contract = contract
        self._encoder = Encoder(contract.vocabularies, vocabularies)

    def batches(self, raw: pd.DataFrame, rows: int) -> Iterator[Columns]:
        """Encode rows.

        Args:
            raw: raw rows; columns beside those of the contract are ignored.
            rows: how many a batch has at most.

        Yields:
            The columns of a sample: ``(B,)``, those of behaviors ``(B, T)`` with T the history's length, and ``behavior_length``.

        Raises:
            ServingInputError: a column is missing or of a wrong type, or a row's lists are of different lengths.
        """
        columns = self._arrow_columns(raw)
        self._check_lengths(columns)
        for start in range(0, len(raw), rows):
            yield self._encode({name: column.slice(start, rows) for name, column in columns.items()}, min(rows, len(raw) - start))

    def _arrow_columns(self, raw: pd.DataFrame) -> dict[str, pa.Array]:
        missing = [field.column for field in self._contract.fields if field.column not in raw.columns]
        if missing:
            raise ServingInputError(
                f"the input lacks the column {', '.join(missing)}; give every field of the contract a column, "
                "of missing values (None) where nothing is known"
            )
        return {
            field.column: _lists(field, raw[field.column]) if field.group == "behaviors" else _values(field, raw[field.column])
            for field in self._contract.fields
        }

    def _check_lengths(self, columns: Mapping[str, pa.Array]) -> None:
        """The lists of a row describe the same behaviors, so they are of one length, a missing list being an empty one."""
        names = [field.column for field in self._contract.group("behaviors")]
        if not names:
            return
        lengths = np.stack([_lengths(columns[name]) for name in names])  # (behavior fields, N)
        ragged = (lengths != lengths[0]).any(axis=0)
        if ragged.any():
            row = int(np.argmax(ragged))
            found = ", ".join(f"{name} {length}" for name, length in zip(names, lengths[:, row], strict=True))
            raise ServingInputError(
                f"row {row}: the lists of a row must be of one length, got {found} ({int(ragged.sum())} such rows of {len(ragged)})"
            )

    def _encode(self, columns: Mapping[str, pa.Array], rows: int) -> Columns:
        encoded: Columns = {LENGTH_COLUMN: np.zeros(rows, np.int32)}
        for field in self._contract.fields:
            column = columns[field.column]
            if field.group == "behaviors":
                encoded[field.column], encoded[LENGTH_COLUMN] = self._encode_lists(field, column)
            else:
                encoded[field.column] = self._encoder.encode(field, column)
        return encoded

    def _encode_lists(self, field: Field, lists: pa.ListArray) -> tuple[Column, npt.NDArray[np.int32]]:
        """The padded column ``(B, T)`` and how many entries of each row are real ``(B,)``."""
        recent = pc.list_slice(lists, 0, self._contract.history.length)
        lengths = _lengths(recent)
        values = self._encoder.encode(field, recent.flatten())
        rows: Column = padded(values, padding(lengths, self._contract.history.length))  # type: ignore[assignment]
        return rows, lengths


def _values(field: Field, column: pd.Series) -> pa.Array:
    return _typed(field, _arrow(field, column))


def _lists(field: Field, column: pd.Series) -> pa.ListArray:
    array = _arrow(field, column)
    if len(array) == array.null_count:
        return pa.nulls(len(array), pa.list_(_kind(field)))
    if not (kinds.is_list(array.type) or kinds.is_large_list(array.type) or kinds.is_fixed_size_list(array.type)):
        raise ServingInputError(
            f"column {field.column}: each row takes a list of behaviors, the most recent first, got {array.type}"
        )
    offsets = np.append(np.int32(0), np.cumsum(_lengths(array), dtype=np.int32))  # a missing list is an empty one
    return pa.ListArray.from_arrays(pa.array(offsets), _typed(field, array.flatten()))


def _kind(field: Field) -> pa.DataType:
    return pa.string() if field.is_text else pa.float64()


def _arrow(field: Field, column: pd.Series) -> pa.Array:
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        if not field.is_text:
            raise ServingInputError(f"column {field.column}: values of one type are needed; {error}") from error
        array = _mixed(field, column)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _mixed(field: Field, column: pd.Series) -> pa.Array:
    """Ids of several types, such as text and whole numbers."""
    try:
        return pa.array([_texts(value) for value in column])
    except TypeError as error:
        raise ServingInputError(f"column {field.column}: an id is text, a number or a boolean; {error}") from error


def _texts(value: Any) -> str | list[str | None] | None:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [canonical_value(None if entry is pd.NA else entry) for entry in value]
    return canonical_value(None if value is pd.NA else value)


def _typed(field: Field, values: pa.Array) -> pa.Array:
    """Single values as the encoder takes them; what would be read as something else than it was in the logs is refused."""
    kind = values.type.value_type if kinds.is_dictionary(values.type) else values.type
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    if len(values) == values.null_count:
        return pa.nulls(len(values), _kind(field))
    if field.is_text:
        text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind)
        if not (text or number or kinds.is_boolean(kind)):
            raise ServingInputError(f"column {field.column}: an id is text, got {kind}; write it as it is in the logs")
        return canonical_text(values)
    if not number:
        raise ServingInputError(f"column {field.column}: a number is needed, got {kind}")
    try:
        return values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ServingInputError(f"column {field.column}: {values.type} is not to be read as a number; {error}") from error


def _lengths(lists: pa.ListArray) -> npt.NDArray[np.int32]:
    lengths: npt.NDArray[np.int32] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    return lengths
