"""Encodes the values of one field of a request, in microseconds: a request has a few hundred of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mian.contract import Contract, Encoder, Field
from mian.contract.canonical import LONGEST_VALUE
from mian.contract.encoder import UNKNOWN_ID, hash_id, number_ids, scaled_numbers
from mian.scoring.raw_values import ServingInputError, convert

Column = npt.NDArray[np.int32] | npt.NDArray[np.float32]
EncodeField = Callable[[Sequence[Any]], Column]

FREQUENT_VALUES = 1 << 14
"""Of a vocabulary, its most frequent ones, are found in a dictionary, which takes 150 bytes a value; others by binary search."""
_ABSENT = -1
_WORD = 1 << 63


def field_encoders(contract: Contract, encoder: Encoder, frequent_values: int = FREQUENT_VALUES) -> dict[str, EncodeField]:
    """By column a function from a list of raw values to ids or numbers, ``(N,)``.

    It gives what ``encoder.encode(field, convert(field, values))`` gives, and raises what that raises, but takes a shorter way with
    values as they mostly are: frequent text, whole numbers, floats, and None.

    Args:
        contract: what the samples are.
        encoder: of the contract's vocabularies.
        frequent_values: see :data:`FREQUENT_VALUES`.
    """
    tables = {vocabulary.name for vocabulary in contract.vocabularies if vocabulary.kind == "table"}
    used = {field.vocabulary for field in contract.fields if field.is_text and field.vocabulary in tables}
    frequent = {name: {**encoder.first_ids(name, frequent_values), None: UNKNOWN_ID} for name in used if name is not None}
    return {field.column: _field_encoder(contract, encoder, frequent, field) for field in contract.fields}


def _field_encoder(
    contract: Contract, encoder: Encoder, frequent: Mapping[str, Mapping[str | None, int]], field: Field
) -> EncodeField:
    def encode_any(values: Sequence[Any]) -> Column:
        return encoder.encode(field, convert(field, list(values)))

    if field.vocabulary is None:
        assert field.transform is not None
        return partial(_numbers, partial(scaled_numbers, field.transform), encode_any)
    vocabulary = contract.vocabulary(field.vocabulary)
    if vocabulary.kind == "buckets":
        return partial(_numbers, partial(number_ids, np.asarray(vocabulary.edges or (), np.float64)), encode_any)
    if vocabulary.kind == "hash":
        return partial(_hashed_texts, vocabulary.size, encode_any)
    return partial(_texts, frequent[vocabulary.name], encode_any)


def _numbers(encode: Callable[[npt.NDArray[np.float64]], Column], encode_any: EncodeField, values: Sequence[Any]) -> Column:
    if set(map(type, values)) <= {float, int, type(None)}:
        try:
            return encode(np.array(values, np.float64))  # None is NaN there, as a missing number is
        except OverflowError:  # a whole number beyond all doubles, for which there is an error that says where it is
            pass
    return encode_any(values)


def _hashed_texts(size: int, encode_any: EncodeField, values: Sequence[Any]) -> Column:
    if all(type(value) is str and value.isascii() and len(value) <= LONGEST_VALUE for value in values):
        return np.fromiter((hash_id(value, size) for value in values), np.int32, len(values))
    return encode_any(values)


def _texts(frequent: Mapping[str | None, int], encode_any: EncodeField, values: Sequence[Any]) -> Column:
    try:
        found = [frequent.get(value, _ABSENT) for value in values]
    except TypeError:  # a list or an object, which is no key of a dictionary
        return encode_any(values)
    ids = np.array(found, np.int32)
    if _ABSENT not in found:
        return ids
    absent = np.flatnonzero(ids == _ABSENT)
    rest = [_text(values[place]) for place in absent]
    ids[absent] = [frequent.get(value, _ABSENT) for value in rest]
    if ids.min() == _ABSENT:
        absent = absent[ids[absent] == _ABSENT]
        try:
            ids[absent] = encode_any([values[place] for place in absent])
        except ServingInputError:
            encode_any(values)  # the same error, with the value's place among all
            raise
    return ids


def _text(value: Any) -> Any:
    """A whole number as the text that it is as an id; any other value as it is."""
    return str(value) if type(value) is int and -_WORD <= value < _WORD else value
