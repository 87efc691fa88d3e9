from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mian.contract import (
    Encoder,
    Field,
    NumericTransform,
    Vocabulary,
    encoder,
    vocabulary_from_parquet,
    vocabulary_to_parquet,
    vocabulary_values,
)
from mian.contract.encoder import LARGEST_NUMBER, _hashes, padded, padding

CITY = Field(group="user", name="city", vocabulary="city")


def table(*values: str) -> Encoder:
    return Encoder(
        [Vocabulary(name="city", size=len(values) + 2, path="city", sha256="")], {"city": pa.array(values, pa.string())}
    )


def test_ids_begin_with_2_and_what_is_unknown_or_missing_is_1() -> None:
    ids = table("rome", "oslo").encode(CITY, pa.array(["oslo", None, "rome", "", "paris", "oslo"]))
    assert ids.dtype == np.int32
    assert ids.tolist() == [3, 1, 2, 1, 1, 3]


@pytest.mark.parametrize(
    "values", [pa.array([], pa.string()), pa.array([None, None], pa.string()), pa.chunked_array([], pa.string())]
)
def test_no_values_and_nulls_alone(values: pa.Array) -> None:
    assert table("rome").encode(CITY, values).tolist() == [1] * len(values)


def test_numbers_are_looked_up_as_text() -> None:
    assert table("7").encode(CITY, pa.array([7, 8])).tolist() == [2, 1]


@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=30), st.lists(st.text(max_size=3), unique=True, max_size=8))
def test_ids_equal_a_loop(values: list[str | None], known: list[str]) -> None:
    ids = table(*known).encode(CITY, pa.array(values, pa.string()))
    assert ids.tolist() == [known.index(v) + 2 if v in known else 1 for v in values]


@given(st.lists(st.text(max_size=3), unique=True, max_size=12), st.lists(st.text(max_size=3), max_size=12), st.integers(1, 3))
def test_values_that_share_a_hash_keep_their_own_ids(known: list[str], asked: list[str], hashes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "hash", lambda value: len(value) % hashes, raising=False)
        ids = table(*known).encode(CITY, pa.array([*asked, *known], pa.string()))
    assert ids.tolist() == [known.index(v) + 2 if v in known else 1 for v in [*asked, *known]]


def test_an_encoder_keeps_its_ids_in_another_process() -> None:
    """Where text has other hashes."""
    content = pickle.dumps(table("rome", "oslo"))
    program = "import pickle, sys; from tests.mian.contract.test_encoder import CITY; import pyarrow as pa; "
    program += "print(pickle.load(sys.stdin.buffer).encode(CITY, pa.array(['oslo', 'rome', 'paris'])).tolist())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True, env=environment)
    assert found.stdout.decode().strip() == "[3, 2, 1]"


def test_numbers_are_transformed_and_missing_ones_are_the_mean() -> None:
    field = Field(group="candidate", name="price", transform=NumericTransform(kind="log", mean=1.0, std=2.0))
    encoded = Encoder([], {}).encode(field, pa.array([0.0, np.e - 1, None, float("nan"), 1 - np.e]))
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, [-0.5, 0.0, 0.0, 0.0, -1.0], atol=1e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["identity", "log"])
def test_numbers_that_float32_cannot_hold_are_cut(kind: Literal["identity", "log"]) -> None:
    field = Field(group="candidate", name="price", transform=NumericTransform(kind=kind, mean=5.0, std=1e-3))
    huge = [float("inf"), 1.7e308, 1e200, 1e39, 5e3]
    encoded = Encoder([], {}).encode(field, pa.array([*huge, *(-x for x in huge)]))
    if kind == "identity":
        assert encoded.tolist() == [LARGEST_NUMBER] * 5 + [-LARGEST_NUMBER] * 5
    assert (encoded[[0, 5]].tolist(), np.isfinite(encoded).all()) == ([LARGEST_NUMBER, -LARGEST_NUMBER], True)


def test_text_that_is_no_number_is_an_error() -> None:
    field = Field(group="candidate", name="price", transform=NumericTransform(kind="identity", mean=0.0, std=1.0))
    with pytest.raises(pa.ArrowInvalid, match="cheap"):
        Encoder([], {}).encode(field, pa.array(["cheap"]))


def test_what_is_encoded_as_a_dictionary_gets_the_same_ids() -> None:
    values = pa.array(["oslo", None, "rome", "paris", "oslo"])
    ids = table("rome", "oslo").encode(CITY, values)
    assert table("rome", "oslo").encode(CITY, values.dictionary_encode()).tolist() == ids.tolist()
    numbers = pa.array([7, None, 8]).dictionary_encode()  # such as pandas categories
    assert table("7").encode(CITY, numbers).tolist() == [2, 1, 1]


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=30), st.integers(1, 5))
def test_a_hashed_value_has_an_id_of_its_hash(values: list[str | None], buckets: int) -> None:
    encoder = Encoder([Vocabulary(name="city", size=buckets + 2, kind="hash")], {})
    expected = [
        1 if v is None else 2 + int.from_bytes(hashlib.blake2b(v.encode(), digest_size=8).digest(), "little") % buckets
        for v in values
    ]
    assert encoder.encode(CITY, pa.array(values, pa.string())).tolist() == expected


def test_hashes_do_not_change_from_release_to_release() -> None:
    encoder = Encoder([Vocabulary(name="city", size=1_000_002, kind="hash")], {})
    assert encoder.encode(CITY, pa.array(["oslo", "rome", ""])).tolist() == [175589, 431472, 838758]


def test_a_number_gets_the_id_of_its_bucket() -> None:
    field = Field(group="behaviors", name="gap", vocabulary="gap", kind="time_gap")
    encoder = Encoder([Vocabulary(name="gap", size=5, kind="buckets", edges=(1.0, 10.0))], {})
    ids = encoder.encode(field, pa.array([0.0, 0.99, 1.0, 9.9, 10.0, 1e9, None, float("nan"), -5.0]))
    assert (ids.dtype, ids.tolist()) == (np.int32, [2, 2, 3, 3, 4, 4, 1, 1, 2])
    assert field.is_categorical
    assert not field.is_text


def test_lists_are_padded_behind() -> None:
    values, lengths = np.array([5, 6, 7], np.int32), np.array([2, 0, 1], np.int32)
    rows = padded(values, padding(lengths, 3))
    assert (rows.dtype, rows.tolist()) == (np.int32, [[5, 6, 0], [0, 0, 0], [7, 0, 0]])
    assert padded(values, padding(lengths, 3, np.array([2, 0, 1]))).tolist() == [[7, 0, 0], [5, 6, 0], [0, 0, 0]]
    assert padded(values[:0], padding(lengths[:0], 3)).shape == (0, 3)


def test_a_vocabulary_is_read_as_it_was_written() -> None:
    file = io.BytesIO()
    vocabulary_to_parquet(pa.array(["b", "a"]), pa.array([5, 3]), file)
    file.seek(0)
    assert vocabulary_from_parquet(file).to_pydict() == {"value": ["b", "a"], "count": [5, 3]}


@pytest.mark.parametrize("values", [0, 1, 65_536, 65_537, 150_000])
def test_the_values_of_a_vocabulary_are_read_in_pieces_and_in_order(values: int) -> None:
    vocabulary_to_parquet(
        pa.array(known := [f"v{n}" for n in range(values)], pa.string()), pa.array([1] * values), file := io.BytesIO()
    )
    file.seek(0)
    read = vocabulary_values(file)
    assert read.type == pa.string()
    assert read.to_pylist() == known
    assert table(*known).encode(CITY, read).tolist() == list(range(2, values + 2))


def test_texts_that_differ_are_told_apart_wherever_they_differ() -> None:
    texts = ["", "\0", "\0\0", "ab", "ba", "a\0", *(f"value {n}" for n in range(50_000))]
    texts += ["x" * n for n in range(1_000, 1_050)] + ["x" * 2_000 + "y", "x" * 1_999 + "yx"]
    hashes = _hashes(pa.array(texts))
    assert len(np.unique(hashes)) == len(texts)
    assert np.log2(hashes.astype(float).max()) > 60
    np.testing.assert_array_equal(_hashes(pa.array(["before", *texts]).slice(1, 40)), hashes[:40])
    assert len(_hashes(pa.array([], pa.string()))) == 0
