"""One user encoded once, and N candidates beside: the logits of N whole rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mian.models import MODELS, ClickModel, build
from tests.factories import CONTRACTS

Batch = dict[str, torch.Tensor]
CANDIDATES = 7
VARIANTS = [(name, {}) for name in MODELS] + [
    ("mian", {"without": ["iuim"]}),
    ("mian", {"without": ["icim", "gim"]}),
    ("mian", {"without": ["ibim"]}),
    ("mian", {"score_activation": "none", "global_fusion": "scaled_concat"}),
    ("mian", {"transformer": "none", "positions": "none"}),
    ("mian_plus", {"target_attention": False, "interactions": "fm"}),
    ("mian_plus", {"interactions": "none"}),
    ("din", {"softmax": True}),
    ("dien", {"attention": "unit"}),
]
CASES = [
    (name, options, contract)
    for name, options in VARIANTS
    for contract in CONTRACTS
    if CONTRACTS[contract].group("candidate") and (name not in ("din", "dien") or CONTRACTS[contract].group("behaviors"))
]


def drawn(name: str, contract_name: str, options: dict[str, object]) -> ClickModel:
    """A model whose logits are far apart, in evaluation mode, with corrected and calibrated probabilities."""
    torch.manual_seed(1)
    model = build(name, CONTRACTS[contract_name], options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.set_negative_sampling_rate(0.25)
    model.set_calibration(1.3, -0.4)
    return model.eval()


def columns_of(contract_name: str, group: str) -> list[str]:
    return [field.column for field in CONTRACTS[contract_name].group(group)]


def one_user(batch: Batch, row: int, candidate_columns: list[str]) -> tuple[Batch, Batch]:
    """The row's user without a candidate, and whole rows: the candidates of the batch, all beside this user."""
    user = {name: column[row : row + 1] for name, column in batch.items() if name not in candidate_columns}
    repeated = {name: column.expand(CANDIDATES, *column.shape[1:]).contiguous() for name, column in user.items()}
    return user, {**repeated, **{name: batch[name][:CANDIDATES] for name in candidate_columns}}


@pytest.mark.parametrize(("name", "options", "contract_name"), CASES)
@torch.no_grad()
def test_candidates_beside_a_user_have_the_logits_of_whole_rows(
    make_batch: Callable[..., Batch], name: str, options: dict[str, object], contract_name: str
) -> None:
    batch = make_batch(CONTRACTS[contract_name])
    model = drawn(name, contract_name, options)
    columns = columns_of(contract_name, "candidate")
    for row in range(CANDIDATES):  # histories of all lengths, none too
        user, rows = one_user(batch, row, columns)
        logits = model.score_candidates(model.encode_user(user), {column: rows[column] for column in columns})
        torch.testing.assert_close(logits, model(rows), atol=2e-5, rtol=1e-5)
        assert logits.std() > 1e-3


@pytest.mark.parametrize(("name", "options", "contract_name"), [case for case in CASES if case[2] == "all groups"])
@torch.no_grad()
def test_the_context_may_differ_by_candidate(
    make_batch: Callable[..., Batch], name: str, options: dict[str, object], contract_name: str
) -> None:
    batch = make_batch(CONTRACTS[contract_name])
    model = drawn(name, contract_name, options)
    columns = [*columns_of(contract_name, "candidate"), *columns_of(contract_name, "context")]
    user, rows = one_user(batch, 3, columns)
    beside = {column: rows[column] for column in columns}
    own_context = {column: batch[column][3:4] for column in columns_of(contract_name, "context")}
    logits = model.score_candidates(model.encode_user({**user, **own_context}), beside)
    torch.testing.assert_close(logits, model(rows), atol=2e-5, rtol=1e-5)


def test_a_part_of_the_context_is_refused(make_batch: Callable[..., Batch]) -> None:
    model = drawn("mian", "all groups", {})
    batch = make_batch(CONTRACTS["all groups"])
    context = columns_of("all groups", "context")
    user = model.encode_user({name: column[:1] for name, column in batch.items()})
    given = [*columns_of("all groups", "candidate"), context[0]]
    with pytest.raises(KeyError, match=f"not {context[1]}"):
        model.score_candidates(user, {name: batch[name] for name in given})
    with pytest.raises(ValueError, match="no columns"):
        model.score_candidates(user, {})


class ReadsRows(ClickModel):
    """A model that embeds by itself, of which nothing is known but that it scores rows."""

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["candidate_item_id"].float() * batch["user_gender"].float() + batch["behavior_item_id"].sum(dim=1)


def test_a_model_of_ones_own_has_the_promise_without_more_code() -> None:
    model = ReadsRows().eval()
    user = {"user_gender": torch.tensor([3]), "behavior_item_id": torch.tensor([[1, 2, 0]])}
    logits = model.score_candidates(model.encode_user(user), {"candidate_item_id": torch.tensor([1, 5])})
    assert logits.tolist() == [6.0, 18.0]


@torch.no_grad()
def test_the_users_part_runs_once(make_batch: Callable[..., Batch]) -> None:
    contract = CONTRACTS["all groups"]
    model = drawn("mian", "all groups", {})
    runs: list[int] = []
    model.transformer.register_forward_hook(lambda *_: runs.append(1))
    batch = make_batch(contract)
    user = model.encode_user({name: column[1:2] for name, column in batch.items()})
    for _ in range(3):
        model.score_candidates(user, {column: batch[column] for column in columns_of("all groups", "candidate")})
    assert len(runs) == 1
