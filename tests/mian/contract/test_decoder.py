"""Raw values back from what the encoder made of them."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from mian.contract import Encoder, Field, NumericTransform, Vocabulary, decode_row
from tests.factories import make_contract

TABLE = pa.array(["books", "toys", "7"])
VOCABULARIES = (
    Vocabulary(name="table", size=5, path="table.parquet", sha256="0" * 64),
    Vocabulary(name="hash", size=50, kind="hash"),
    Vocabulary(name="price", size=5, kind="buckets", edges=(10.0, 20.0)),
    Vocabulary(name="gap", size=7, kind="buckets", edges=(1.0, 90.0, 5400.0, 129600.0)),
)
LOG = NumericTransform(kind="log", mean=2.0, std=0.5)
IDENTITY = NumericTransform(kind="identity", mean=-3.0, std=4.0)
ENCODER = Encoder(VOCABULARIES, {"table": TABLE})
LENGTH = 3


def there_and_back(field: Field, values: Sequence[Any], length: int = 0) -> Any:
    """What is decoded of a field's values after they were encoded; of behaviors so many are real."""
    contract = make_contract(field, vocabularies=VOCABULARIES, length=LENGTH)
    encoded = ENCODER.encode(field, pa.array(values)).tolist()
    row = {field.column: encoded if field.group == "behaviors" else encoded[0], "behavior_length": length}
    return decode_row(contract, {"table": TABLE}, row)[field.column]


@pytest.mark.parametrize("value", ["books", "toys", "7"])
def test_a_value_of_a_table_comes_back(value: str) -> None:
    assert there_and_back(Field(group="user", name="x", vocabulary="table"), [value]) == value


@pytest.mark.parametrize("vocabulary", ["table", "hash", "price"])
def test_a_missing_value_is_none(vocabulary: str) -> None:
    field = Field(group="user", name="x", vocabulary=vocabulary, kind="number" if vocabulary == "price" else "value")
    assert there_and_back(field, pa.array([None], pa.float64() if vocabulary == "price" else pa.string())) is None


def test_an_unknown_value_is_none() -> None:
    assert there_and_back(Field(group="user", name="x", vocabulary="table"), ["games"]) is None


def test_an_id_beyond_the_table_is_none() -> None:
    longer = Encoder(VOCABULARIES, {"table": pa.array(["books", "toys", "7", "late"])})
    field = Field(group="user", name="x", vocabulary="table")
    assert longer.encode(field, pa.array(["late"])).tolist() == [5]
    contract = make_contract(field, vocabularies=VOCABULARIES)
    assert decode_row(contract, {"table": TABLE}, {"user_x": 5}) == {"user_x": None}


def test_a_hash_is_told_by_its_number() -> None:
    field = Field(group="user", name="x", vocabulary="hash")
    (number,) = ENCODER.encode(field, pa.array(["books"]))
    assert there_and_back(field, ["books"]) == f"hash {number}"


@pytest.mark.parametrize(("value", "shown"), [(9.9, "below 10"), (10.0, "10 to 20"), (19.9, "10 to 20"), (20.0, "from 20")])
def test_a_bucket_is_the_range_that_holds_the_number(value: float, shown: str) -> None:
    assert there_and_back(Field(group="user", name="x", vocabulary="price", kind="number"), [value]) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.5, "below 1 s"), (60.0, "1 s to 1.5 min"), (3600.0, "1.5 min to 1.5 h"), (7200.0, "1.5 h to 1.5 d"), (1e6, "from 1.5 d")],
)
def test_a_gap_is_told_in_units_of_time(seconds: float, shown: str) -> None:
    assert there_and_back(Field(group="user", name="x", vocabulary="gap", kind="time_gap"), [seconds]) == shown


@pytest.mark.parametrize("transform", [LOG, IDENTITY], ids=["log", "identity"])
@pytest.mark.parametrize("value", [0.0, 12.34, -7.5, 1e5])
def test_a_number_comes_back(transform: NumericTransform, value: float) -> None:
    decoded = there_and_back(Field(group="candidate", name="x", transform=transform), [value])
    assert decoded == pytest.approx(value, rel=1e-5, abs=1e-5)


def test_a_missing_number_is_the_training_mean() -> None:
    missing = pa.array([None], pa.float64())
    assert there_and_back(Field(group="candidate", name="x", transform=IDENTITY), missing) == -3.0
    assert there_and_back(Field(group="candidate", name="x", transform=LOG), missing) == pytest.approx(math.expm1(2.0))


def test_a_number_that_was_cut_is_infinite_where_no_float_holds_it() -> None:
    assert there_and_back(Field(group="candidate", name="x", transform=LOG), [math.inf]) == math.inf


def test_of_behaviors_the_real_ones_come_back() -> None:
    field = Field(group="behaviors", name="x", vocabulary="table")
    assert there_and_back(field, ["toys", "games", "books"], length=2) == ["toys", None]
