"""What stands for fields that are known only after ranking."""

import io
from typing import Any

import pyarrow as pa
import pytest

from mian.contract import Contract, ContractError, Field, Reference, Vocabulary, vocabulary_to_parquet
from mian.scoring.stand_ins import described, position_stand_ins, serving_stand_ins
from tests.factories import categorical, make_contract, numeric

VOCABULARIES = (
    Vocabulary(name="slot", size=6),
    Vocabulary(name="empty", size=2),
    Vocabulary(name="depth", size=5, kind="buckets", edges=(1.0, 2.0)),
)
FIELDS = (
    categorical("candidate", "position", "slot"),
    categorical("context", "position", "slot"),
    categorical("context", "page", "empty"),
    Field(group="context", name="depth", vocabulary="depth", kind="number"),
    numeric("context", "scroll", mean=3.0),
    categorical("context", "device", "slot"),
)


def test_it_is_the_most_frequent_value_of_the_training_days_and_the_mean_of_a_number() -> None:
    reference = {
        "context_position": Reference(shares=(0.5, 0.1, 0.2, 0.15, 0.05)),  # unknown, ids 2 to 4, all others
        "context_depth": Reference(shares=(0.0, 0.2, 0.2, 0.6, 0.0)),
    }
    contract = make_contract(*FIELDS, vocabularies=VOCABULARIES).model_copy(update={"reference": reference})
    found = serving_stand_ins(contract, dict.fromkeys(["position", "page", "depth", "scroll"]), {})
    assert found == {"context_position": 3, "context_page": 1, "context_depth": 4, "context_scroll": 0.0}


def test_without_a_reference_it_is_the_first_value() -> None:
    contract = make_contract(*FIELDS, vocabularies=VOCABULARIES).model_copy(update={"reference": {}})
    assert serving_stand_ins(contract, {"position": None}, {}) == {"context_position": 2}


def slots() -> bytes:
    """The vocabulary of positions."""
    content = io.BytesIO()
    vocabulary_to_parquet(pa.array(["1", "2", "top", "4"]), pa.array([9, 8, 7, 6]), content)
    return content.getvalue()


def contract_of() -> Contract:
    shares = (0.5, 0.1, 0.2, 0.15, 0.05)
    return make_contract(*FIELDS, vocabularies=VOCABULARIES).model_copy(
        update={"reference": {"context_position": Reference(shares=shares)}}
    )


def test_a_value_can_be_named() -> None:
    fields = {"position": 2, "depth": 1.5, "scroll": 4.0, "device": "top"}
    found = serving_stand_ins(contract_of(), fields, {"slot": slots()})
    assert found == {"context_position": 3, "context_depth": 3, "context_scroll": 1.0, "context_device": 4}
    assert described(contract_of(), "context_position", 3, {"slot": slots()}) == "2 (20.0% of the training days' rows)"
    assert described(contract_of(), "context_device", 4, {"slot": slots()}) == "top"
    assert described(contract_of(), "context_scroll", 1.0, {}) == "4.0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slot": None}, "no field 'slot' of the context; they have position, page, depth, scroll, device"),
        ({"position": "9"}, "'9' is no value of its vocabulary"),
        ({"scroll": "far"}, "a number is needed"),
    ],
)
def test_a_field_or_a_value_that_the_samples_lack_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        serving_stand_ins(contract_of(), fields, {"slot": slots()})


def test_a_position_need_not_be_there() -> None:
    assert serving_stand_ins(make_contract(*FIELDS[:1], vocabularies=VOCABULARIES), {"position": None}, {}) == {}


def test_a_model_without_any_cannot_be_scored_as_in_serving() -> None:
    assert position_stand_ins({}, "logged") == {}
    assert position_stand_ins({"context_position": 3}, "logged") == {}
    assert position_stand_ins({"context_position": 3}, "serving") == {"context_position": 3}
    with pytest.raises(ContractError, match="train it again with position_fields"):
        position_stand_ins({}, "serving")
