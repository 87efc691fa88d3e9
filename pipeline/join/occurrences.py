"""How often the values of a vocabulary occur, counted so that no label changes a count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import IntArray

#: A column of text: numbers into its values, -1 for null.
TextColumn = tuple[npt.NDArray[np.int32], pa.Array]


@dataclass(frozen=True)
class _Field:
    """The values of a field, all of shape ``(N,)``: whose they are, of which impression (None for behaviors), which they are."""

    users: IntArray
    impressions: IntArray | None
    numbers: IntArray
    values: pa.Array


class Occurrences:
    """Counts the values of one vocabulary, among all rows of some users.

    A value occurs once in each impression that has it, in one field or several, and once for each user who has it in a behavior but in
    none of these impressions. A click is a behavior of the impression's user with the impression's values, so whether there was a click
    changes no count of a value that the impression has. Nor does it change the count of a value in the impression's history: its user
    has that value in a behavior already.
    """

    def __init__(self) -> None:
        self._fields: list[_Field] = []

    def add(self, column: TextColumn, rows: IntArray, users: IntArray, impressions: IntArray | None) -> None:
        """Add a field.

        Args:
            column: its values.
            rows: the rows of the column, -1 where nothing is known, shape ``(N,)``.
            users: whose they are, shape ``(N,)``.
            impressions: the number of each one's impression, shape ``(N,)``; None where they are behaviors.
        """
        numbers, values = column
        if not len(numbers):
            return
        chosen = np.where(rows < 0, -1, numbers[rows])
        known = np.flatnonzero(chosen >= 0)
        impression_fields = impressions[known] if impressions is not None else None
        self._fields.append(_Field(users[known], impression_fields, chosen[known].astype(np.int64), values))

    def counts(self) -> pa.Table:
        """Columns ``value``, each once, and ``count``."""
        dictionaries = [field.values.cast(pa.string()) for field in self._fields]
        names = pc.unique(pa.concat_arrays([pa.array([], pa.string()), *dictionaries]))
        codes = [
            pc.index_in(values, names).to_numpy().astype(np.int64)[field.numbers]
            for field, values in zip(self._fields, dictionaries, strict=True)
        ]
        impression_fields = [(f, code) for f, code in zip(self._fields, codes, strict=True) if f.impressions is not None]
        behavior_fields = [(f, code) for f, code in zip(self._fields, codes, strict=True) if f.impressions is None]
        width = max(1, len(names))
        counts = _of_impressions(impression_fields, width)
        pairs = np.unique(
            np.concatenate([np.zeros(0, np.int64), *[field.users * width + code for field, code in behavior_fields]])
        )
        if len(pairs):
            alone = np.ones(len(pairs), np.bool_)
            for field, code in impression_fields:
                keys = field.users * width + code
                place = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
                alone[place[pairs[place] == keys]] = False
            counts += np.bincount(pairs[alone] % width, minlength=width)
        occurring = np.flatnonzero(counts)
        return pa.table({"value": names.take(pa.array(occurring)), "count": pa.array(counts[occurring])})


def _of_impressions(impression_fields: list[tuple[_Field, IntArray]], width: int) -> IntArray:
    """In how many impressions each value is, shape ``(width,)``."""
    if len(impression_fields) == 1:
        return np.bincount(impression_fields[0][1], minlength=width).astype(np.int64)
    keys = [field.impressions * width + code for field, code in impression_fields if field.impressions is not None]
    once = np.unique(np.concatenate([np.zeros(0, np.int64), *keys]))
    return np.bincount(once % width, minlength=width).astype(np.int64)
