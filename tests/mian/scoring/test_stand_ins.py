"""What stands for fields that are known only after ranking."""

from mian.contract import Field, Reference, Vocabulary
from mian.scoring.stand_ins import serving_stand_ins
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
    found = serving_stand_ins(contract, ["position", "page", "depth", "scroll", "no such field"])
    assert found == {"context_position": 3, "context_page": 1, "context_depth": 4, "context_scroll": 0.0}


def test_without_a_reference_it_is_the_first_value() -> None:
    contract = make_contract(*FIELDS, vocabularies=VOCABULARIES).model_copy(update={"reference": {}})
    assert serving_stand_ins(contract, ["position"]) == {"context_position": 2}
