"""Packed raw samples of one file, taken together and encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mian.contract import Contract, Encoder
from mian.contract.encoder import missing_numbers
from pipeline.arrays import IntArray
from pipeline.join.blobs import unpack, widened


class EncodedSamples:
    """The N samples of some blobs, in the order in which they come.

    Args:
        payloads: blobs, see :mod:`pipeline.join.blobs`.
        contract: what the samples are.
        encoder: of its vocabularies.

    Attributes:
        tables: the raw samples, a table a blob.
        ages: how many behaviors are so many whole days older than their impressions.
        lengths: of the histories, int32 ``(N,)``.
        columns: encoded fields, ``(N,)`` each; without those of behaviors.
        behaviors: encoded fields of the behaviors, one sample's after the other's, ``(sum of lengths,)`` each.
        missing: how many numbers each numeric field lacks.
    """

    def __init__(self, payloads: list[pa.Buffer], contract: Contract, encoder: Encoder) -> None:
        tables, ages = zip(*(unpack(payload) for payload in payloads), strict=True)
        self.tables: tuple[pa.Table, ...] = tables
        self.ages: IntArray = np.zeros(max(map(len, ages)), np.int64)
        for part in ages:
            self.ages[: len(part)] += part
        self.lengths = self._list_lengths(contract)
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self.behaviors: dict[str, npt.NDArray[Any]] = {}
        self.missing: dict[str, int] = {}
        for field in contract.fields:
            is_behavior = field.group == "behaviors"
            raw = self._values(field.column, is_behavior)
            if not field.is_categorical:
                self.missing[field.column] = missing_numbers(raw)
            (self.behaviors if is_behavior else self.columns)[field.column] = encoder.encode(field, raw)

    def plain(self, name: str) -> npt.NDArray[Any]:
        """A column of numbers, raw, ``(N,)``."""
        return np.concatenate([table.column(name).to_numpy() for table in self.tables])

    def text(self, name: str) -> pa.Array:
        """A column of text, raw, ``(N,)``."""
        return pa.chunked_array([chunk for table in self.tables for chunk in table.column(name).chunks]).combine_chunks()

    def _values(self, name: str, is_list: bool) -> pa.Array:
        """A column's raw values, those of lists one after the other; of text with each value once."""
        parts = [table.column(name).combine_chunks() for table in self.tables]
        column = pa.chunked_array([widened(part.flatten() if is_list else part) for part in parts])
        return (column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column).combine_chunks()

    def _list_lengths(self, contract: Contract) -> npt.NDArray[np.int32]:
        fields = contract.group("behaviors")
        if not fields:
            return np.zeros(sum(table.num_rows for table in self.tables), np.int32)
        lengths = [pc.list_value_length(table.column(fields[0].column)).to_numpy() for table in self.tables]
        together: npt.NDArray[np.int32] = np.concatenate(lengths).astype(np.int32)
        return together
