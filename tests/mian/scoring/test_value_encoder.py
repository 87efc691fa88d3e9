"""The short ways of encoding give what the contract's encoder gives, whatever the values are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mian.contract import Contract, Encoder, Vocabulary
from mian.scoring import value_encoder
from mian.scoring.raw_values import ServingInputError, convert
from mian.scoring.servable_files import vocabulary_tables
from mian.scoring.value_encoder import ValueEncoder
from tests.factories import categorical, make_contract, numeric, write_vocabularies

WORDS = ["i0", "i1", "7", "20000000", "0.5", "true", "", "\u00e9", "x" * 1_000, *(f"rare {n}" for n in range(40))]
FIELDS = (
    categorical("candidate", "item", "words"),
    categorical("candidate", "hashed", "hashed"),
    categorical("candidate", "bucket", "bucket").model_copy(update={"kind": "number"}),
    numeric("candidate", "price", "log", mean=2.0, std=1.5),
    numeric("candidate", "age", mean=-3.0, std=0.5),
)
VALUES = st.one_of(
    st.sampled_from([*WORDS, "new", "x" * 1_001, "\u00e9" * 600, "\ud800", 7, 7.0, 20_000_000, True, False, None, 0.5, -0.0]),
    st.sampled_from([2**53, 2.0**53, 2**63, 10**30, 10**400, float("nan"), float("inf"), [], {}, np.float32(0.1)]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contract, str]:
    folder = tmp_path_factory.mktemp("words")
    vocabularies = (
        *write_vocabularies(folder, {"words": WORDS}),
        Vocabulary(name="hashed", size=12, kind="hash"),
        Vocabulary(name="bucket", size=6, kind="buckets", edges=(-1.0, 0.0, 7.0)),
    )
    return make_contract(*FIELDS, vocabularies=vocabularies), str(folder)


def outcome(encode: Any, values: list[Any]) -> Any:
    try:
        column = encode(values)
    except ServingInputError as error:
        return str(error)
    return column.dtype, column.tolist()


@pytest.fixture(scope="module", params=[0, 5, 1_000])
def encoders(contract: tuple[Contract, str], request: pytest.FixtureRequest) -> Iterator[tuple[ValueEncoder, Encoder]]:
    """With a dictionary of none of the values, of some, and of all."""
    tables = vocabulary_tables(*contract)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_encoder, "_FREQUENT", request.param)
        patch.setattr(value_encoder, "_PIECE", 2)
        yield ValueEncoder(contract[0], tables), Encoder(contract[0].vocabularies, tables)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@given(values=st.lists(VALUES, max_size=8))
def test_each_value_is_encoded_as_by_the_contract(encoders: tuple[ValueEncoder, Encoder], field: Any, values: list[Any]) -> None:
    short, encoder = encoders
    assert outcome(lambda given: short.encode(field, given), values) == outcome(
        lambda given: encoder.encode(field, convert(field, given)), values
    )
