from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import Encoder, Field, NumericTransform, vocabulary_from_parquet, vocabulary_to_parquet

CITY = Field(group="user", name="city", vocabulary="city")


def test_ids_begin_with_2_and_what_is_unknown_or_missing_is_1() -> None:
    encoder = Encoder({"city": pa.array(["rome", "oslo"])})
    ids = encoder.encode(CITY, pa.array(["oslo", None, "rome", "", "paris", "oslo"]))
    assert ids.dtype == np.int32
    assert ids.tolist() == [3, 1, 2, 1, 1, 3]


@pytest.mark.parametrize(
    "values", [pa.array([], pa.string()), pa.array([None, None], pa.string()), pa.chunked_array([], pa.string())]
)
def test_no_values_and_nulls_alone(values: pa.Array) -> None:
    assert Encoder({"city": pa.array(["rome"])}).encode(CITY, values).tolist() == [1] * len(values)


def test_numbers_are_looked_up_as_text() -> None:
    assert Encoder({"city": pa.array(["7"])}).encode(CITY, pa.array([7, 8])).tolist() == [2, 1]


@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=30), st.lists(st.text(max_size=3), unique=True, max_size=8))
def test_ids_equal_a_loop(values: list[str | None], known: list[str]) -> None:
    ids = Encoder({"city": pa.array(known, pa.string())}).encode(CITY, pa.array(values, pa.string()))
    assert ids.tolist() == [known.index(v) + 2 if v in known else 1 for v in values]


def test_numbers_are_transformed_and_missing_ones_are_the_mean() -> None:
    field = Field(group="candidate", name="price", transform=NumericTransform(kind="log", mean=1.0, std=2.0))
    encoded = Encoder({}).encode(field, pa.array([0.0, np.e - 1, None, float("nan"), float("inf"), 1 - np.e]))
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, [-0.5, 0.0, 0.0, 0.0, 0.0, -1.0], atol=1e-7)


def test_text_that_is_no_number_is_an_error() -> None:
    field = Field(group="candidate", name="price", transform=NumericTransform(kind="identity", mean=0.0, std=1.0))
    with pytest.raises(pa.ArrowInvalid, match="cheap"):
        Encoder({}).encode(field, pa.array(["cheap"]))


def test_a_vocabulary_is_read_as_it_was_written() -> None:
    file = io.BytesIO()
    vocabulary_to_parquet(pa.array(["b", "a"]), pa.array([5, 3]), file)
    file.seek(0)
    assert vocabulary_from_parquet(file).to_pydict() == {"value": ["b", "a"], "count": [5, 3]}
