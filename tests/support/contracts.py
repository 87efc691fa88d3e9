"""Small contracts with groups of every kind."""

from collections.abc import Mapping

from mian.contract import Contract, Field, History, Label, NumericTransform, Vocabulary

SIZES = {"items": 40, "shop.category": 9, "age": 7, "hour": 26}
NUMBER = NumericTransform(kind="identity", mean=0.0, std=1.0)


def categorical(group: str, name: str, vocabulary: str) -> Field:
    return Field(group=group, name=name, vocabulary=vocabulary)


def numeric(group: str, name: str) -> Field:
    return Field(group=group, name=name, transform=NUMBER)


def contract_of(*fields: Field, length: int = 6, sizes: Mapping[str, int] = SIZES) -> Contract:
    """A contract of these fields; its vocabularies have names that a torch module may not have."""
    return Contract(
        name="small",
        fields=fields,
        vocabularies=tuple(Vocabulary(name=n, size=size, path=f"{n}.parquet", sha256="0") for n, size in sizes.items()),
        vocabulary_fingerprint="0",
        history=History(length=length, days=30),
        label=Label(kind="labeled"),
        splits={},
        config_fingerprint="0",
        code_fingerprint="0",
        days=(),
    )


CANDIDATE = (
    categorical("candidate", "item_id", "items"),
    numeric("candidate", "price"),
    categorical("candidate", "category", "shop.category"),
)
BEHAVIORS = (
    categorical("behaviors", "item_id", "items"),
    categorical("behaviors", "category", "shop.category"),
    numeric("behaviors", "hours_ago"),
)
USER = (categorical("user", "age", "age"), numeric("user", "tenure"), categorical("user", "favorite", "items"))
CONTEXT = (categorical("context", "hour", "hour"), numeric("context", "rank"))

CONTRACTS = {
    "all groups": contract_of(*CANDIDATE, *BEHAVIORS, *USER, *CONTEXT),
    "groups interleaved": contract_of(*CONTEXT, *BEHAVIORS[::-1], *USER[::-1], *CANDIDATE[::-1]),
    "no user fields": contract_of(*CANDIDATE, *BEHAVIORS, *CONTEXT),
    "no context fields": contract_of(*CANDIDATE, *BEHAVIORS, *USER),
    "no behaviors": contract_of(*CANDIDATE, *USER, *CONTEXT),
    "candidate alone": contract_of(*CANDIDATE),
    "one field a group": contract_of(CANDIDATE[0], BEHAVIORS[0], USER[0], CONTEXT[0]),
    "numbers alone": contract_of(CANDIDATE[1], BEHAVIORS[2], USER[1], CONTEXT[1]),
}
