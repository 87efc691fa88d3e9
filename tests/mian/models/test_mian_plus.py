"""MIAN-plus against a transcription in NumPy, and where it is MIAN."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mian.contract import Contract
from mian.models import build
from tests.factories import CONTRACTS
from tests.support.arithmetic import assert_float32_scores
from tests.support.paper_numpy import Array, Paper
from tests.support.peers_numpy import Peers
from tests.support.perturbed import perturbed

SMALL = {"embedding_dim": 4, "heads": 2, "mlp": (8, 4), "unit": (7, 5), "cin": (3,), "init_std": 0.4}
OPTIONS = [
    {},
    {"transformer": "pre_ln"},
    {"target_attention": False},
    {"interactions": "none"},
    {"interactions": "fm"},
    {"cin": (3, 4)},
    {"without": ("gim",)},
    {"without": ("ibim",)},
    {"unit": (6,)},
]


class Plus(Paper):
    """MIAN with DIN's unit in IBIM, and a linear part and products of fields added to the logit."""

    def __init__(self, contract: Contract, config: Any, weights: Mapping[str, Any]) -> None:
        super().__init__(contract, config, weights)
        self.peers = Peers(contract, config, weights)
        unit_weights = {name.removeprefix("item_behaviors."): weight for name, weight in weights.items()}
        self.unit = Peers(contract, SimpleNamespace(unit_activation="relu", unit=config.unit), unit_weights)

    def logit(self, sample: Mapping[str, Any]) -> float:
        logit = super().logit(sample)
        if self.config.interactions == "none":
            return logit
        v = self.peers.field_vectors("embedding", sample)
        if self.config.interactions == "fm":
            pair_sum = sum(float(v[i] @ v[j]) for i in range(len(v)) for j in range(i))
        else:
            pair_sum = self.peers.cin(v, "relu", split_half=False)
        return logit + self.peers.linear("linear", sample) + pair_sum

    def interaction(self, name: str, e_i: Array, vectors: list[Array], shared: bool) -> Array:
        if name != "item_behaviors" or not self.config.target_attention:
            return super().interaction(name, e_i, vectors, shared)
        q = np.split(e_i, len(self.contract.group("candidate")))
        scores = [self.unit.unit(q, np.split(h, len(self.contract.group("behaviors")))) for h in vectors]
        return np.concatenate([e_i, sum(score * h for score, h in zip(scores, vectors, strict=True))])


def make(contract: Contract, **options: Any) -> Any:
    torch.manual_seed(1)
    return perturbed(build("mian_plus", contract, {**SMALL, **options}))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_its_equations_under_every_option(contract: Contract, make_batch: Any, options: Any) -> None:
    model, batch = make(contract, **options), make_batch(contract)
    expected = Plus(contract, model.config, model.state_dict()).logits(batch)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(assert_float32_scores(model, batch), expected, atol=1e-10)


@pytest.mark.parametrize("name", CONTRACTS)
def test_it_is_its_equations_over_every_contract(make_batch: Any, name: str) -> None:
    contract = CONTRACTS[name]
    model, batch = make(contract), make_batch(contract)
    expected = Plus(contract, model.config, model.state_dict()).logits(batch)
    np.testing.assert_allclose(model.double()(batch).detach(), expected, atol=1e-10)


def test_with_all_of_its_own_switched_off_it_is_mian(contract: Contract, make_batch: Any) -> None:
    options = {"target_attention": False, "interactions": "none", "global_fusion": "project", "transformer": "pre_ln"}
    plus = make(contract, **options)
    mian = build("mian", contract, {name: value for name, value in SMALL.items() if name not in ("unit", "cin")}).eval()
    mian.load_state_dict(plus.state_dict())
    batch = make_batch(contract)
    assert torch.equal(plus(batch), mian(batch))


def test_what_stands_in_the_padding_changes_nothing(contract: Contract, make_batch: Any) -> None:
    model, batch = make(contract), make_batch(contract)
    other = dict(batch)
    padding = torch.arange(contract.history.length) >= batch["behavior_length"][:, None]
    for field in contract.group("behaviors"):
        column = batch[field.column]
        other[field.column] = torch.where(padding, torch.ones_like(column), column)
    torch.testing.assert_close(model(other), model(batch))


def test_every_parameter_has_a_gradient(contract: Contract, make_batch: Any, loss_of: Any) -> None:
    torch.manual_seed(0)
    model, batch = build("mian_plus", contract, {"embedding_dim": 4, "init_std": 0.1}), make_batch(contract, rows=256)
    loss_of(model, batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().count_nonzero() > 0, name


def test_it_explains_itself_as_mian_does(contract: Contract, make_batch: Any) -> None:
    model, batch = make(contract), make_batch(contract)
    weights = model.explain(batch)
    assert set(weights) == {"behaviors", "user", "context", "global"}
    padding = torch.arange(contract.history.length) >= batch["behavior_length"][:, None]
    assert (weights["behaviors"][padding] == 0).all()
    assert (weights["behaviors"][~padding] != 0).all()
