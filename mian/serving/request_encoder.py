"""From a DataFrame of raw values to the columns that a model reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from mian.contract import Contract, Encoder, Field
from mian.contract.canonical import canonical_text
from mian.contract.document import LENGTH_COLUMN
from mian.contract.encoder import padded, padding
from mian.scoring.one_user_encoder import Columns, filled
from mian.scoring.raw_values import ServingInputError, convert, drop_long_texts, is_missing, raw_type
from mian.scoring.value_encoder import Column


class RowEncoder:
    """Encodes raw rows as the samples were.

    A row has a column a field, named as the contract names it. Ids are text, or numbers and booleans with the text that they had in
    the logs, see :func:`mian.contract.canonical.canonical_text`; numbers are numbers. Either may be missing (None, NaN, NA), which is
    an unknown id or the training mean. A behavior column has a list a row, the most recent behavior first and of any length; those beyond
    the history's length are left out. A missing list is an empty history. Each value is read by itself: what stands beside it, and the
    column's dtype, change nothing. A float that is an id is refused where floats leave out whole numbers, from 2^53 on.

    Args:
        contract: what the samples are.
        vocabularies: for each vocabulary that is a table its values in the order of their ids.
        stand_ins: by column of the context what is read where the rows have no such column, see
            :func:`mian.scoring.stand_ins.serving_stand_ins`.
    """

    def __init__(
        self, contract: Contract, vocabularies: Mapping[str, pa.Array], stand_ins: Mapping[str, int | float] | None = None
    ) -> None:
        self._contract = contract
        self._stand_ins = dict(stand_ins or {})
        self._encoder = Encoder(contract.vocabularies, vocabularies)

    def batches(self, raw: pd.DataFrame, rows: int) -> Iterator[Columns]:
        """Encode rows.

        Args:
            raw: raw rows; columns beside those of the contract are ignored.
            rows: how many a batch has at most.

        Yields:
            The columns of a sample: ``(B,)``, those of behaviors ``(B, T)`` with T the history's length, and ``behavior_length``.

        Raises:
            ServingInputError: see :meth:`columns`.
        """
        columns = self.columns(raw)
        for start in range(0, len(raw), rows):
            yield self._encode({name: column.slice(start, rows) for name, column in columns.items()}, min(rows, len(raw) - start))

    def columns(self, raw: pd.DataFrame) -> dict[str, pa.Array]:
        """Raw rows as the encoder takes them: ids as text, numbers as doubles, lists of these, nulls where nothing is known.

        Args:
            raw: raw rows; columns beside those of the contract are ignored.

        Returns:
            Arrays of N values by column; a missing list is an empty one. Columns that something stands for may be missing here too.

        Raises:
            ServingInputError: a column is missing, there twice or of a wrong type, or a row's lists are of different lengths.
        """
        missing = [field.column for field in self._contract.fields if field.column not in raw.columns]
        left_out = [column for column in missing if column in self._stand_ins]
        missing = [column for column in missing if column not in self._stand_ins]
        if missing:
            raise ServingInputError(
                f"the input lacks the column {', '.join(missing)}; give every field of the contract a column, "
                "of missing values (None) where nothing is known"
            )
        twice = [field.column for field in self._contract.fields if (raw.columns == field.column).sum() > 1]
        if twice:
            raise ServingInputError(f"the input has the column {', '.join(twice)} more than once; give each column once")
        columns = {
            field.column: _lists(field, raw[field.column]) if field.group == "behaviors" else _values(field, raw[field.column])
            for field in self._contract.fields
            if field.column not in left_out
        }
        self._check_lengths(columns)
        return columns

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
            column = columns.get(field.column)
            if column is None:
                encoded[field.column] = filled(field, rows, self._stand_ins[field.column])
            elif field.group == "behaviors":
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
    """Single values, one a row."""
    array = _arrow(column)
    return convert(field, list(column)) if array is None else _typed(field, array)


def _lists(field: Field, column: pd.Series) -> pa.ListArray:
    """The lists of the rows; a missing one is an empty one."""
    array = _arrow(column)
    if array is None:
        rows = [_entries(field, row, value) for row, value in enumerate(column)]
        ends = np.cumsum([len(entries) for entries in rows], dtype=np.int32)
        values = convert(field, list(itertools.chain.from_iterable(rows)), ends)
    else:
        if len(array) == array.null_count:
            array = pa.nulls(len(array), pa.list_(raw_type(field)))
        if not (kinds.is_list(array.type) or kinds.is_large_list(array.type) or kinds.is_fixed_size_list(array.type)):
            raise ServingInputError(
                f"column {field.column}: each row takes a list of behaviors, the most recent first, got {array.type}"
            )
        ends = np.cumsum(_lengths(array), dtype=np.int32)
        values = _typed(field, array.flatten())
    return pa.ListArray.from_arrays(pa.array(np.append(np.int32(0), ends)), values)


def _entries(field: Field, row: int, value: Any) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value)
    if is_missing(value):
        return ()
    raise ServingInputError(
        f"column {field.column}, row {row}: a list of behaviors is needed, the most recent first, got {type(value).__name__}"
    )


def _arrow(column: pd.Series) -> pa.Array | None:
    """A column of one type as Arrow has it; None where each value has a type of its own, or Arrow does not take them."""
    if column.dtype == object:
        return None
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        return None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _typed(field: Field, values: pa.Array) -> pa.Array:
    """Single values of one type as the encoder takes them; what would be read as something else than it was in the logs is refused."""
    if kinds.is_dictionary(values.type):
        return _typed(field, values.dictionary).take(values.indices)
    kind = values.type
    if len(values) == values.null_count:
        return pa.nulls(len(values), raw_type(field))
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    if not field.is_text:
        if not number:
            raise ServingInputError(f"column {field.column}: a number is needed, got {kind}")
        return values.cast(pa.float64(), safe=False)
    text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind)
    if not (text or number or kinds.is_boolean(kind)):
        raise ServingInputError(f"column {field.column}: an id is text, got {kind}; write it as it is in the logs")
    if kinds.is_floating(kind):
        wide = values.cast(pa.float32()) if kinds.is_float16(kind) else values
        return convert(field, list(wide.to_numpy(zero_copy_only=False)))
    return drop_long_texts(canonical_text(values))


def _lengths(lists: pa.ListArray) -> npt.NDArray[np.int32]:
    lengths: npt.NDArray[np.int32] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    return lengths
