from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mian.contract.canonical import canonical_text, canonical_value


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_number_has_one_text_in_every_type(number: int) -> None:
    arrays = [
        pa.array([number], pa.int64()),
        pa.array([float(number)], pa.float64()),
        pa.array([Decimal(number)], pa.decimal128(38, 10)),
        pa.array([Decimal(number)], pa.decimal128(20, 0)),
        pa.array([str(number)]),
        pa.array([str(number).encode()]),
        pa.array([float(number)]).dictionary_encode(),
    ]
    assert [canonical_text(array).to_pylist() for array in arrays] == [[str(number)]] * len(arrays)
    values = (number, float(number), np.int64(number), np.float64(number), Decimal(number), Decimal(number).scaleb(-3).scaleb(3))
    assert {canonical_value(value) for value in values} == {str(number)}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_without_an_exponent_and_says_its_value(number: float) -> None:
    (text,) = canonical_text(pa.array([number])).to_pylist()
    assert float(text) == number
    assert set(text) <= set("-0123456789.")
    assert not text.endswith((".", ".0"))
    assert canonical_value(number) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_narrow_float_has_the_digits_of_its_width(number: float) -> None:
    (text,) = canonical_text(pa.array([number], pa.float32())).to_pylist()
    assert np.float32(text) == np.float32(number)
    assert text == canonical_value(np.float32(number))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0e7, "20000000"),
        (0.1, "0.1"),
        (np.float32(0.1), "0.1"),
        (1e-7, "0.0000001"),
        (-0.0, "0"),
        (1e22, "10000000000000000000000"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.000"), "0"),
        (Decimal("-0.50"), "-0.5"),
        (True, "true"),
        (np.bool_(False), "false"),
        (b"a\xc3\xb6", "aö"),
        (b"\xff", None),
        (math.nan, None),
        (math.inf, None),
        (None, None),
        (" 7 ", " 7 "),
        ("2.0E7", "2.0E7"),
    ],
)
def test_values_and_their_text(value: object, text: str | None) -> None:
    assert canonical_value(value) == text
    if not isinstance(value, Decimal):
        assert canonical_text(pa.array([value, None])).to_pylist() == [text, None]


def test_what_has_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="no text, number or boolean"):
        canonical_value({"a": 1})
