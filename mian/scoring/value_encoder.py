"""From short lists of raw values to ids and numbers, in microseconds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mian.contract import UNKNOWN_ID, Contract, Encoder, Field
from mian.contract.encoder import FIRST_ID, number_ids, transform_numbers
from mian.scoring.raw_values import ServingInputError, convert

Column = npt.NDArray[np.int32] | npt.NDArray[np.float32]

#: Values of a vocabulary, the most frequent, whose ids lie in a dictionary. It takes 150 bytes a value; the others are searched for.
_FREQUENT = 1 << 16
#: Values that become Python's at a time.
_PIECE = 1 << 12
#: Whole numbers beyond this are written out by the encoder, which refuses what is too long.
_WORD = 1 << 63
_NUMBERS = {float, int, type(None)}


class ValueEncoder:
    """Encodes as :class:`mian.contract.Encoder` does what :func:`mian.scoring.raw_values.convert` makes of Python's values.

    That takes a third of a millisecond for a field, however few its values are; this takes a few microseconds where the values are text of
    frequent values, numbers, or missing.

    Args:
        contract: says how values become ids.
        vocabularies: for each vocabulary that is a table its values in the order of their ids.
    """

    def __init__(self, contract: Contract, vocabularies: Mapping[str, pa.Array]) -> None:
        self._encoder = Encoder(contract.vocabularies, vocabularies)
        self._ids: dict[str, dict[str | None, int]] = {}
        self._whole: set[str] = set()
        self._edges: dict[str, npt.NDArray[np.float64]] = {}
        for vocabulary in contract.vocabularies:
            if vocabulary.kind == "buckets":
                self._edges[vocabulary.name] = np.asarray(vocabulary.edges or (), np.float64)
            else:
                table = vocabularies[vocabulary.name] if vocabulary.kind == "table" else pa.array([], pa.string())
                self._ids[vocabulary.name] = {None: UNKNOWN_ID, **_first_ids(table)}
                if vocabulary.kind == "table" and len(table) <= _FREQUENT:
                    self._whole.add(vocabulary.name)

    def encode(self, field: Field, values: Sequence[Any]) -> Column:
        """Encode single values.

        Args:
            field: which they are of.
            values: N of them, see :class:`mian.scoring.one_user_encoder.OneUserEncoder`.

        Returns:
            Shape ``(N,)``: int32 ids, or float32 numbers.

        Raises:
            ServingInputError: a value is of a wrong type.
        """
        if field.is_text:
            return self._text_ids(field, values)
        if not set(map(type, values)) <= _NUMBERS:
            return self._encoder.encode(field, convert(field, list(values)))
        try:
            raw = np.array(values, np.float64)  # None is NaN
        except OverflowError:
            return self._encoder.encode(field, convert(field, list(values)))  # which says of which row
        if field.vocabulary is not None:
            return number_ids(self._edges[field.vocabulary], raw)
        assert field.transform is not None, "a field has a vocabulary or a transform"
        return transform_numbers(field.transform, raw)

    def _text_ids(self, field: Field, values: Sequence[Any]) -> npt.NDArray[np.int32]:
        known = self._ids[field.vocabulary or ""]
        try:
            ids = np.fromiter(map(known.get, values, itertools.repeat(0)), np.int32, len(values))
        except TypeError:  # a list or an object in the place of a value
            ids = np.zeros(len(values), np.int32)
        (others,) = np.nonzero(ids == 0)  # padding, which no value is
        if len(others):
            absent = UNKNOWN_ID if field.vocabulary in self._whole else 0
            ids[others] = [_other_id(known, absent, values[place]) for place in others.tolist()]
            (others,) = np.nonzero(ids == 0)
        if len(others):
            missed = [values[place] for place in others.tolist()]
            try:
                raw = convert(field, missed)
            except ServingInputError:
                raw = convert(field, list(values))  # which says of which row
            ids[others] = self._encoder.encode(field, raw)
        return ids


def _other_id(known: Mapping[str | None, int], absent: int, value: Any) -> int:
    """The id of text or of a whole number that is no key of a dictionary.

    Args:
        known: the dictionary.
        absent: the id of text that it lacks; 0 where it does not hold all of the vocabulary.
        value: of any type; 0 for all that has to be looked at more closely.
    """
    if type(value) is str:
        return absent if value.isascii() else 0  # other text may be half of a surrogate pair
    return known.get(str(value), absent) if type(value) is int and abs(value) < _WORD else 0


def _first_ids(table: pa.Array) -> dict[str | None, int]:
    """The ids of a vocabulary's most frequent values; in pieces, between which other threads run."""
    ids: dict[str | None, int] = {}
    for start in range(0, min(_FREQUENT, len(table)), _PIECE):
        ids |= zip(table.slice(start, min(_PIECE, _FREQUENT - start)).to_pylist(), itertools.count(FIRST_ID + start))
    return ids
