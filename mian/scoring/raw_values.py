"""Raw values of requests, of any type, as the encoder takes them."""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mian.contract import Field
from mian.contract.canonical import LONGEST_VALUE, canonical_value


class ServingInputError(ValueError):
    """The values to score are not what the model takes: a missing field, a wrong type, lists of different lengths.

    Args:
        message: what is wrong, where, and what to do.
        field: where in a request: ``context.device``; None where that is not known.
        reason: what is wrong with a value, without where it is; the message where it is not given.
        row: of that value.

    Attributes:
        field: where in a request, or None.
        reason: what is wrong.
        row: of the value, from 0.
    """

    def __init__(self, message: str, field: str | None = None, reason: str | None = None, row: int = 0) -> None:
        super().__init__(message)
        self.field = field
        self.reason = message if reason is None else reason
        self.row = row


def raw_type(field: Field) -> pa.DataType:
    """The Arrow type of a field's raw values: string, or float64."""
    return pa.string() if field.is_text else pa.float64()


def drop_long_texts(texts: pa.Array) -> pa.Array:
    """Text that no sample holds is no value: more than :data:`LONGEST_VALUE` bytes."""
    return pc.if_else(pc.less_equal(pc.binary_length(texts), LONGEST_VALUE), texts, pa.scalar(None, pa.string()))


def convert(field: Field, values: list[Any], ends: npt.NDArray[np.int32] | None = None) -> pa.Array:
    """Values of any types as the encoder takes them, each by itself, so that none is read by what stands beside it.

    Args:
        field: which they are of.
        values: of all rows, one after the other.
        ends: where in there the lists of the rows end; None where each row is one value.
    """
    types = set(map(type, values)) - {type(None)}
    if not field.is_text and types <= {float, np.float64}:
        return pa.array(values, pa.float64(), from_pandas=True)
    if field.is_text and types <= {str}:
        with contextlib.suppress(UnicodeEncodeError):
            return drop_long_texts(pa.array(values, pa.string()))
    convert_value = _text if field.is_text else _number
    converted: list[str | float | None] = []
    try:
        for value in values:
            converted.append(convert_value(value))
    except (TypeError, ValueError, OverflowError) as error:
        place = len(converted)
        row = place if ends is None else int(np.searchsorted(ends, place, "right"))
        raise ServingInputError(f"column {field.column}, row {row}: {error}", None, str(error), row) from error
    return pa.array(converted, raw_type(field))


def _text(value: Any) -> str | None:
    """The text of an id, as it was in the logs.

    Raises:
        TypeError: it is no text, number or boolean.
        ValueError: it does not say which id it is.
    """
    if is_missing(value):
        return None
    try:
        text = canonical_value(value)
        if text is not None and isinstance(value, (float, np.floating)):
            _check_float(value, text)
        return None if text is None or len(text.encode()) > LONGEST_VALUE else text
    except TypeError as error:
        raise TypeError(f"an id is text, a number or a boolean, got {type(value).__name__}") from error
    except UnicodeEncodeError as error:
        raise ValueError("the text is not Unicode, it holds half of a surrogate pair") from error


def _number(value: Any) -> float | None:
    """A number as a double.

    Raises:
        TypeError: it is none.
        OverflowError: it is larger than any double.
    """
    if is_missing(value):
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating, Decimal)):
        raise TypeError(f"a number is needed, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError as error:
        raise OverflowError("the number is larger than any double") from error


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or isinstance(value, (float, np.floating)):
        return value is None or math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")  # by name: pandas is not needed to serve


def _check_float(value: float | np.floating[Any], text: str) -> None:
    """Refuse a finite float whose text as an id may not be the one that it had in the logs.

    Raises:
        ValueError: whole numbers of its size are left out by floats, or it was one of 32 bits, which has fewer digits.
    """
    if abs(value) >= 2 ** (np.finfo(type(value)).nmant + 1):
        raise ValueError(
            "an id is a float of a size at which floats leave out whole numbers; give it as text or as a whole number"
        )
    narrow = np.float32(value)
    if narrow == value and canonical_value(narrow) != text:
        raise ValueError("an id is a float of 32 bits that was widened to 64, which changes its digits; give it as text")
