"""Which columns a stream reads, and what tensor each becomes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import torch

from mian.contract import Contract
from mian.contract.document import ID_COLUMN, LABEL_COLUMN, LENGTH_COLUMN, TIME_COLUMN, USER_COLUMN
from mian.stream.errors import StreamError

Tensors = dict[str, torch.Tensor]
"""Columns by name."""
Arrays = dict[str, npt.NDArray[Any]]
"""The same, as they come out of files: memory that may not be written to."""

_ARROW_TYPES = {torch.int32: pa.int32(), torch.int64: pa.int64(), torch.float32: pa.float32()}


@dataclass(frozen=True)
class Column:
    """A column of the samples: tensors of ``dtype`` and shape ``(B,)``, or ``(B, length)`` where it holds lists."""

    name: str
    dtype: torch.dtype
    length: int | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        """The type that the Parquet files must have."""
        value_type = _ARROW_TYPES[self.dtype]
        return value_type if self.length is None else pa.list_(value_type)

    def matches(self, arrow_type: pa.DataType) -> bool:
        """Whether a file's type is the column's; how a list names its entries does not matter."""
        if self.length is None:
            return bool(arrow_type == self.arrow_type)
        return bool(pa.types.is_list(arrow_type) and arrow_type.value_type == _ARROW_TYPES[self.dtype])


def columns_of(contract: Contract, names: Sequence[str] | None = None) -> tuple[Column, ...]:
    """The columns to read, in the order asked for.

    Args:
        contract: says what columns there are.
        names: columns asked for; None for all that a tensor can hold: the fields, then ``behavior_length``, ``label``,
            ``user_key`` and ``time``.

    Raises:
        StreamError: a name is unknown, given twice, or of a column of strings; or no name is given.
    """
    known = {column.name: column for column in _all_columns(contract)}
    if names is None:
        return tuple(known.values())
    if not names:
        raise StreamError("no column is asked for; name at least one, or leave the columns out to read all")
    for name in names:
        if name == ID_COLUMN:
            raise StreamError(f"column {name!r} holds strings, which no tensor can; read it with pyarrow, or ask for the others")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
            raise StreamError(f"contract {contract.name!r} has no column {name!r}; {hint}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise StreamError(f"column {twice[0]!r} is asked for twice; name it once")
    return tuple(known[name] for name in names)


def _all_columns(contract: Contract) -> list[Column]:
    fields = [
        Column(
            field.column,
            torch.int32 if field.is_categorical else torch.float32,
            contract.history.length if field.group == "behaviors" else None,
        )
        for field in contract.fields
    ]
    return [
        *fields,
        Column(LENGTH_COLUMN, torch.int32),
        Column(LABEL_COLUMN, torch.int32),
        Column(USER_COLUMN, torch.int64),
        Column(TIME_COLUMN, torch.int64),
    ]
