"""One text for one value, whatever type it has where it comes from.

A whole number is the same id as 64-bit integer, as ``decimal(38,10)`` and as a float that a missing value made of it. The Spark workers,
the audit and the served model all take their text from here.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

#: Bytes of a value; a longer one is none: unknown.
LONGEST_VALUE = 1_000


def canonical_text(values: pa.Array) -> pa.Array:
    """The text of raw values.

    Numbers are written out, without an exponent and without zeros behind the point: ``20000000``, ``0.1``, and ``0`` for a negative zero.
    A float has the fewest digits that tell it from its neighbors of the same width. NaN and infinities are no values. Booleans are
    ``true`` and ``false``, bytes the UTF-8 text that they are. Text stays as it is.

    Args:
        values: shape ``(N,)``, of any type with a text; nulls are allowed.

    Returns:
        Strings, shape ``(N,)``; null where there is no value, or bytes that are not UTF-8.
    """
    kind = values.type
    if kinds.is_dictionary(kind):
        texts = canonical_text(values.dictionary)
        return texts.take(values.indices)
    if kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
        distinct = values.dictionary_encode() if not kinds.is_float16(kind) else values.cast(pa.float32()).dictionary_encode()
        texts = pa.array(map(canonical_value, _scalars(distinct.dictionary)), pa.string())
        return texts.take(distinct.indices)
    return values.cast(pa.string())


def canonical_value(value: object) -> str | None:
    """The text of one raw value; see :func:`canonical_text`.

    Raises:
        TypeError: it is no text, number or boolean.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _without_sign_of_zero(np.format_float_positional(value, trim="-")) if np.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        text = format(value, "f")
        return _without_sign_of_zero(text.rstrip("0").rstrip(".") if "." in text else text)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    raise TypeError(f"{value!r} is no text, number or boolean")


def _without_sign_of_zero(text: str) -> str:
    return "0" if text == "-0" else text


def _scalars(values: pa.Array) -> list[object]:
    """Floats of their own width, which decides how many digits they have."""
    if kinds.is_floating(values.type):
        return list(values.to_numpy(zero_copy_only=False))
    scalars: list[object] = values.to_pylist()
    return scalars
