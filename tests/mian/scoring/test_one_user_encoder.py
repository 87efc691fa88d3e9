"""Requests of one user and N candidates are encoded as the same values in whole rows are, or refused with a word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mian.contract import Contract, Field, Vocabulary
from mian.scoring import value_encoder
from mian.scoring.one_user_encoder import OneUserEncoder
from mian.scoring.raw_values import ServingInputError
from mian.serving.request_encoder import RowEncoder
from tests.factories import categorical, make_contract, numeric

LENGTH = 5
ITEMS = [f"i{number}" for number in range(40)] + ["Gemüse", "日本", "true", "7", "0.1", "9223372036854775808", ""]
TABLES = {"item": pa.array(ITEMS), "city": pa.array(["Oslo", "Bergen"])}
VOCABULARIES = (
    Vocabulary(name="item", size=len(ITEMS) + 2),
    Vocabulary(name="city", size=4),
    Vocabulary(name="brand", size=20, kind="hash"),
    Vocabulary(name="gap", size=5, kind="buckets", edges=(0.0, 60.0)),
)
FIELDS = (
    categorical("candidate", "item_id", "item"),
    categorical("candidate", "brand", "brand"),
    numeric("candidate", "price", "log", mean=2.0, std=0.5),
    categorical("behaviors", "item_id", "item"),
    Field(group="behaviors", name="gap", vocabulary="gap", kind="time_gap"),
    numeric("behaviors", "price", mean=1.0),
    categorical("user", "city", "city"),
    numeric("user", "visits"),
    categorical("context", "city", "city"),
    categorical("context", "position", "item"),
)
TEXTS = [*ITEMS, "unknown", "Ítem", "x" * 1_001, "\U0001d4b3", None, float("nan"), 7, True, 0.1, 2**63, 3.0, float("inf")]
NUMBERS = [0, 1.5, -3, 59.99, 60, 2**63, -(2**70), 1e300, float("inf"), -float("inf"), float("nan"), None]


def contract_of(*fields: Field) -> Contract:
    return make_contract(*fields, vocabularies=VOCABULARIES, length=LENGTH)


CONTRACT = contract_of(*FIELDS)
STAND_INS = {"context_position": 4}


@pytest.fixture(params=[1 << 16, 3], ids=["all values frequent", "three values frequent"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OneUserEncoder:
    monkeypatch.setattr(value_encoder, "_FREQUENT", request.param)
    return OneUserEncoder(CONTRACT, TABLES, STAND_INS)


def drawn(field: Field, count: int, random: np.random.Generator) -> list[Any]:
    values = TEXTS if field.is_text else NUMBERS
    return [values[number] for number in random.integers(0, len(values), count)]


def request_of(random: np.random.Generator, count: int, length: int) -> dict[str, dict[str, Any]]:
    """Values of a whole request, by group and field, of any kind."""
    lengths = {"candidate": count, "behaviors": length, "user": 1, "context": 1}
    groups: dict[str, dict[str, Any]] = {group: {} for group in lengths}
    for field in CONTRACT.fields:
        values = drawn(field, lengths[field.group], random)
        groups[field.group][field.name] = values if field.group in ("candidate", "behaviors") else values[0]
    return groups


def rows_of(request: Mapping[str, Mapping[str, Any]], by_candidate: Mapping[str, list[Any]], count: int) -> pd.DataFrame:
    """The same request as whole rows."""
    columns: dict[str, list[Any]] = {}
    for field in CONTRACT.fields:
        value = request[field.group][field.name]
        columns[field.column] = value if field.group == "candidate" else [value] * count
    columns |= {f"context_{name}": values for name, values in by_candidate.items()}
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


@pytest.mark.parametrize("seed", range(30))
def test_a_request_is_encoded_as_whole_rows_are(encoder: OneUserEncoder, seed: int) -> None:
    random = np.random.default_rng(seed)
    count, length = int(random.integers(1, 30)), int(random.integers(0, 2 * LENGTH))
    request = request_of(random, count, length)
    by_candidate = {"position": drawn(CONTRACT.group("context")[1], count, random)} if seed % 2 else {}
    user = encoder.user(request["user"], request["context"], request["behaviors"])
    candidates = encoder.candidates(user, request["candidate"], by_candidate)

    (rows,) = RowEncoder(CONTRACT, TABLES).batches(rows_of(request, by_candidate, count), count)
    assert candidates.keys() >= {field.column for field in CONTRACT.group("candidate")}
    assert ("context_city" in candidates) == bool(by_candidate)  # all of the context, or none of it
    for name, column in rows.items():
        found = candidates[name] if name in candidates else user[name].repeat(count, axis=0)
        assert found.dtype == column.dtype
        np.testing.assert_array_equal(found, column, err_msg=name)


def test_a_field_that_is_left_out_is_what_stands_for_it_and_a_missing_value_is_unknown(encoder: OneUserEncoder) -> None:
    request = request_of(np.random.default_rng(0), 2, 1)
    context = {"city": "Oslo"}
    assert encoder.user(request["user"], context, {})["context_position"].tolist() == [4]
    assert encoder.user(request["user"], context | {"position": None}, {})["context_position"].tolist() == [1]


def test_no_lists_are_an_empty_history(encoder: OneUserEncoder) -> None:
    request = request_of(np.random.default_rng(0), 2, 0)
    without, empty = (encoder.user(request["user"], request["context"], lists) for lists in ({}, request["behaviors"]))
    assert without["behavior_length"].tolist() == [0]
    for name, column in without.items():
        np.testing.assert_array_equal(column, empty[name])


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"user": {"city": "Oslo"}}, "user.visits", "visits missing"),
    ({"user": {"city": "Oslo", "visits": 1, "town": 2}}, "user.town", "no field 'town'"),
    ({"user": {"city": ["Oslo"], "visits": 1}}, "user.city", "an id is text"),
    ({"user": {"city": {}, "visits": 1}}, "user.city", "an id is text"),
    ({"user": {"city": "Oslo", "visits": "1"}}, "user.visits", "^user.visits: a number is needed"),
    ({"user": {"city": "Oslo", "visits": True}}, "user.visits", "a number is needed"),
    ({"user": {"city": "\ud800", "visits": 1}}, "user.city", "surrogate"),
    ({"user": {"city": 2.0**53, "visits": 1}}, "user.city", "leave out whole numbers"),
    ({"user": {"city": "Oslo", "visits": 10**400}}, "user.visits", "larger than any double"),
    ({"context": {"position": "i1"}}, "context.city", "city missing"),
    ({"behaviors": {"item_id": ["i1"], "gap": [1.0]}}, "behaviors.price", "price missing"),
    ({"behaviors": {"item_id": ["i1"], "gap": [1.0], "price": []}}, "behaviors", "of one length"),
    ({"candidates": {"item_id": ["i1"], "brand": ["b"]}}, "candidates.price", "price missing"),
    ({"candidates": {"item_id": ["i1", "i2"], "brand": ["b"], "price": [1]}}, "candidates", "of one length"),
    ({"candidates": {"item_id": [], "brand": [], "price": []}}, "candidates", "there is none"),
    ({"candidates": {"item_id": ["i1", ["i2"]], "brand": ["b", "b"], "price": [1, 2]}}, "candidates.item_id", r"\[1\]: an id is text"),
    ({"candidates": {"item_id": "i1", "brand": ["b", "b"], "price": [1, 2]}}, "candidates.item_id", "a list is needed, got str"),
    ({"behaviors": {"item_id": None, "gap": [1.0], "price": [1.0]}}, "behaviors.item_id", "a list is needed, got NoneType"),
    ({"candidate_context": {"slot": ["i1"]}}, "candidate_context.slot", "no field 'slot'"),
    ({"candidate_context": {"position": ["i1", "i2"]}}, "candidates", "of one length"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "field", "message"), WRONG, ids=[f"{field}: {message}" for _, field, message in WRONG])
def test_what_is_wrong_is_said_with_its_field(encoder: OneUserEncoder, changed: dict[str, Any], field: str, message: str) -> None:
    request: dict[str, Any] = {
        "user": {"city": "Oslo", "visits": 1},
        "context": {"city": "Oslo"},
        "behaviors": {},
        "candidates": {"item_id": ["i1"], "brand": ["b"], "price": [1]},
        "candidate_context": {},
    }
    request |= changed
    with pytest.raises(ServingInputError, match=message) as raised:
        user = encoder.user(request["user"], request["context"], request["behaviors"])
        encoder.candidates(user, request["candidates"], request["candidate_context"])
    assert raised.value.field == field


@pytest.mark.parametrize(
    "kind", [np.array, tuple, lambda values: pd.Series(values, index=range(len(values))[::-1], dtype=object)]
)
def test_values_are_taken_in_their_order_whatever_holds_them(encoder: OneUserEncoder, kind: Any) -> None:
    request = request_of(np.random.default_rng(1), 1, 0)
    user = encoder.user(request["user"], request["context"], {})
    lists = {"item_id": ["i39", "i1", "new", "i7"], "brand": ["a", "b", "c", "d"], "price": [4.0, 3.0, 2.0, 1.0]}
    right = encoder.candidates(user, lists)
    found = encoder.candidates(user, {name: kind(values) for name, values in lists.items()})
    for name, column in right.items():
        np.testing.assert_array_equal(found[name], column)
    histories = [{"item_id": kind(["i39", "i1"]), "gap": kind([1.0, 70.0]), "price": kind([2.0, 1.0])}, {}]
    for lists, history in zip(({"item_id": ["i39", "i1"], "gap": [1.0, 70.0], "price": [2.0, 1.0]}, {}), histories, strict=True):
        right, found = (encoder.user(request["user"], request["context"], behaviors) for behaviors in (lists, history))
        for name, column in right.items():
            np.testing.assert_array_equal(found[name], column)


def test_a_model_without_behaviors_refuses_them() -> None:
    encoder = OneUserEncoder(contract_of(*FIELDS[:3]), TABLES, {})
    assert encoder.user({}, {}, {}) == {}
    with pytest.raises(ServingInputError, match="it has none") as raised:
        encoder.user({}, {}, {"item_id": ["i1"]})
    assert raised.value.field == "behaviors.item_id"


def test_neither_torch_nor_pandas_is_imported() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("torch", "pandas", "mlflow", "pyspark"))
import mian.scoring.one_user_encoder, mian.scoring.onnx_scorer, mian.scoring.scorer, mian.scoring.servable_files, mian.scoring.stand_ins
"""
    subprocess.run([sys.executable, "-c", code], check=True)
