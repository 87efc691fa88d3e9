from __future__ import annotations

from typing import Any

import pytest
import torch

from mian.config import TrainConfig
from mian.contract import Contract, Vocabulary
from mian.training.table_memory import TableMemoryError, refuse_large_tables
from tests.factories import categorical, make_contract

GIB = 2**30
CPU = torch.device("cpu")


def contract(rows: int) -> Contract:
    """One hashed vocabulary of the items, shared by candidate and behaviors, and a small one."""
    return make_contract(
        categorical("candidate", "item_id", "item_id"),
        categorical("behaviors", "item_id", "item_id"),
        categorical("user", "age", "age"),
        vocabularies=(Vocabulary(name="item_id", size=rows, kind="hash"), Vocabulary(name="age", size=10, kind="hash")),
        length=3,
    )


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({"samples": "s", "model": {"name": "din", "options": {"embedding_dim": 16}}} | changes)


def test_a_table_that_cannot_fit_is_refused_with_its_size() -> None:
    with pytest.raises(TableMemoryError) as caught:
        refuse_large_tables(settings(), contract(2**31 - 1), 1, 1, CPU, 64 * GIB)
    for words in (
        "need 384.0 GiB",
        "has 64.0 GiB",
        "'item_id': 2,147,483,647 rows of 16 numbers",
        "hash_buckets",
        "tables.placement=sharded",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "ranks", "local", "gib"),
    [
        ({}, 1, 1, 3.0),
        ({}, 4, 2, 6.0),
        ({"optimizer": {"tables": "rowwise_adagrad"}}, 1, 1, 17 / 16),
        ({"tables": {"placement": "sharded"}}, 4, 1, 0.75),
        ({"tables": {"placement": "sharded"}}, 4, 4, 3.0),
        ({"model": {"name": "lr"}}, 1, 1, 3 / 16),
    ],
)
def test_what_fits_exactly_is_taken_and_a_byte_less_is_not(changes: dict[str, Any], ranks: int, local: int, gib: float) -> None:
    config, needed = settings(**changes), int(gib * GIB)
    refuse_large_tables(config, contract(2**24 - 10), ranks, local, CPU, needed)
    with pytest.raises(TableMemoryError):
        refuse_large_tables(config, contract(2**24 - 10), ranks, local, CPU, needed - 1)


def test_the_memory_of_this_machine_is_what_counts() -> None:
    refuse_large_tables(settings(), contract(1000), 1, 1, CPU)
    with pytest.raises(TableMemoryError, match="of this machine"):
        refuse_large_tables(
            settings(model={"name": "din", "options": {"embedding_dim": 100_000}}), contract(2**31 - 1), 1, 1, CPU
        )
