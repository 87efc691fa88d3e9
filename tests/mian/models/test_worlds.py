"""What each model can learn, in worlds with one effect, and that it can learn rows by heart."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mian.contract import Contract
from mian.models import MODELS, ClickModel, build
from tests.factories import BEHAVIORS, CANDIDATE, CONTEXT, SIZES, categorical, make_contract
from tests.support.learnable_worlds import World, contract_of, fields_of, make_world, train

SMALL: dict[str, dict[str, Any]] = {
    "lr": {},
    "fm": {},
    "wide_deep": {"mlp": (32, 16)},
    "dcn": {"mlp": (32, 16), "cross_layers": 2},
    "dcn_v2": {"mlp": (32, 16)},
    "deepfm": {"mlp": (32, 16), "dropout": 0.0},
    "xdeepfm": {"mlp": (32, 16), "dropout": 0.0, "cin": (8, 8)},
    "din": {"mlp": (32, 16)},
    "dien": {"mlp": (32, 16)},
    "mian": {"mlp": (32, 16), "dropout": 0.0, "heads": 2, "global_dim": 32},
    "mian_plus": {"mlp": (32, 16), "dropout": 0.0, "heads": 2, "unit": (32,)},
}
OF_HISTORIES = ("din", "dien", "mian", "mian_plus")
OTHERS = tuple(name for name in MODELS if name not in OF_HISTORIES)


def always(*names: str, among: Iterable[str]) -> list[Any]:
    """All of them, but those that are not named by -m long alone."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.long) for name in among]


world = cache(make_world)


def make(name: str, contract: Contract, **options: Any) -> ClickModel:
    torch.manual_seed(0)
    widths = {} if name == "lr" else {"embedding_dim": 8}
    return build(name, contract, {"init_std": 0.1, **widths, **SMALL[name], **options})


def share_of_best(effect: str, name: str, epochs: int, **options: Any) -> float:
    """How far the AUC of a trained model is from 0.5, over how far it could be at best."""
    effect_world: World = world(effect)
    model = make(name, contract_of(fields_of(effect)), **options)
    train(model, effect_world.train, epochs)
    auc, best = effect_world.aucs(model)
    print(f"{effect}: {name} {options or ''} has AUC {auc:.4f}, the best possible is {best:.4f}")
    return (auc - 0.5) / (best - 0.5)


def test_every_model_is_tried():
    assert set(SMALL) == set(MODELS)


def test_lr_cannot_learn_what_two_fields_are_together():
    assert abs(share_of_best("second_order", "lr", epochs=4)) < 0.1


@pytest.mark.parametrize("name", always("fm", "mian", among=[name for name in MODELS if name != "lr"]))
def test_all_others_learn_what_two_fields_are_together(name):
    assert share_of_best("second_order", name, epochs=4) > 0.9


@pytest.mark.parametrize(
    ("name", "least"), [("din", 0.9), pytest.param("dien", 0.8, marks=pytest.mark.long), ("mian", 0.6), ("mian_plus", 0.9)]
)
def test_models_of_histories_learn_what_was_done_with_the_candidate(name, least):
    assert share_of_best("history", name, epochs=6) > least


@pytest.mark.parametrize("name", always("fm", among=OTHERS))
def test_the_mean_of_a_history_does_not_tell_what_was_done_with_the_candidate(name):
    assert abs(share_of_best("history", name, epochs=6)) < 0.1


@pytest.mark.parametrize("name", always("mian", among=["dien", "mian", "mian_plus"]))
def test_dien_and_mian_learn_from_the_order_of_behaviors(name):
    assert share_of_best("order", name, epochs=3) > 0.9


@pytest.mark.parametrize("effect", ["order", "history"])
def test_without_ibim_mian_knows_histories_as_means_alone(effect):
    assert abs(share_of_best(effect, "mian", epochs=3, without=["ibim"])) < 0.1


@pytest.mark.parametrize("name", always("din", among=["din", *OTHERS]))
def test_a_sum_over_behaviors_does_not_tell_their_order(name):
    assert abs(share_of_best("order", name, epochs=3)) < 0.1


@pytest.mark.parametrize(("effect", "module"), [("picked_profile", "iuim"), ("picked_context", "icim")])
def test_mian_weighs_fields_by_the_candidate_and_without_the_module_knows_less(effect, module):
    whole, less = share_of_best(effect, "mian", epochs=4), share_of_best(effect, "mian", epochs=4, without=[module])
    assert whole > 0.9
    assert less < whole - 0.2


@pytest.mark.parametrize(("effect", "module"), [("profile", "iuim"), ("context", "icim")])
def test_what_one_field_says_whoever_the_candidate_is_needs_no_module(effect, module):
    """The group's own part of Eq. 14 tells it."""
    assert share_of_best(effect, "mian", epochs=2, without=[module]) > 0.9


@pytest.mark.parametrize("name", always("lr", "mian", among=MODELS))
@pytest.mark.parametrize("effect", ["profile", "context"])
def test_every_model_learns_from_a_profile_alone_and_from_the_context_alone(effect, name):
    assert share_of_best(effect, name, epochs=2) > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_256_rows_by_heart(name):
    """Labels are drawn: there is nothing to learn but the rows. LR needs values that few rows share."""
    fields = [field for field in (*CANDIDATE, *BEHAVIORS, *CONTEXT) if field.vocabulary]
    contract = make_contract(*fields, categorical("user", "id", "ids"), vocabularies={**SIZES, "ids": 1000})
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 7, 256)
    batch = {"behavior_length": torch.tensor(lengths), "label": torch.tensor(rng.integers(0, 2, 256))}
    for field in contract.fields:
        values = rng.integers(1, contract.vocabulary(field.vocabulary).size, (256, 6) if field.group == "behaviors" else 256)
        batch[field.column] = torch.tensor(values, dtype=torch.int32)
    model = make(name, contract)
    # a logit of LR is a sum of few weights, which move by this much a step
    train(model, batch, epochs=150, batch_size=128, learning_rate=1e-1 if name == "lr" else 2e-2)
    with torch.inference_mode():
        logloss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch["label"].float()).item()
    print(f"{name}: logloss {logloss:.4f}")
    assert logloss < 0.05
