"""The peers: their papers' equations over contracts of every kind, their padding, their losses."""

import numpy as np
import pytest
import torch

from mian.kernels import JaggedLayout
from mian.layers import BatchNormalization
from mian.models import MODELS, build
from tests.factories import CONTRACTS
from tests.support.arithmetic import UNIT, assert_float32_scores
from tests.support.peers_numpy import Peers
from tests.support.perturbed import perturbed

SMALL = {
    "lr": {},
    "fm": {"embedding_dim": 4},
    "wide_deep": {"embedding_dim": 4, "mlp": (12, 7)},
    "dcn": {"embedding_dim": 4, "mlp": (12, 7), "cross_layers": 3},
    "dcn_v2": {"embedding_dim": 4, "mlp": (12, 7), "cross_layers": 2},
    "deepfm": {"embedding_dim": 4, "mlp": (12, 7)},
    "xdeepfm": {"embedding_dim": 4, "mlp": (12, 7), "cin": (6, 4, 5)},
    "din": {"embedding_dim": 4, "mlp": (12, 7), "unit": (9, 5)},
    "dien": {"embedding_dim": 4, "mlp": (12, 7)},
}
OPTIONS = [
    *SMALL.items(),
    ("dcn_v2", {**SMALL["dcn_v2"], "structure": "parallel"}),
    ("xdeepfm", {**SMALL["xdeepfm"], "cin_split_half": True, "cin_activation": "relu"}),
    ("xdeepfm", {**SMALL["xdeepfm"], "cin": (3,)}),
    ("din", {**SMALL["din"], "softmax": True, "unit_activation": "sigmoid", "activation": "relu"}),
    ("din", {**SMALL["din"], "unit": (9,), "mlp": ()}),
]
FITTING = [(name, of) for name in SMALL for of in CONTRACTS if name not in ("din", "dien") or CONTRACTS[of].group("behaviors")]


@pytest.fixture
def make():
    """A peer in evaluation mode, whose weights, biases and moving averages are large enough for differences to show."""

    def make(name, contract, options):
        torch.manual_seed(1)
        return perturbed(build(name, contract, {"init_std": 0.4, **options}))

    return make


def assert_the_papers_scores(name, model, contract, batch):
    expected = Peers(contract, model.config, model.state_dict()).logits(name, batch)
    assert np.std(expected) > 0.02
    np.testing.assert_allclose(assert_float32_scores(model, batch), expected, atol=1e-10)


def test_every_peer_is_here():
    assert {*SMALL, "mian", "mian_plus"} == set(MODELS)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_a_peer_is_its_papers_equations_under_every_option(make, make_batch, contract, name, options):
    assert_the_papers_scores(name, make(name, contract, options), contract, make_batch(contract))


@pytest.mark.parametrize(("name", "of"), [(name, of) for name, of in FITTING if of != "numbers alone"])
def test_a_peer_is_its_papers_equations_over_every_contract(make, make_batch, name, of):
    assert_the_papers_scores(name, make(name, CONTRACTS[of], SMALL[name]), CONTRACTS[of], make_batch(CONTRACTS[of]))


@pytest.mark.parametrize("name", SMALL)
def test_what_stands_in_the_padding_changes_nothing_and_neither_does_its_length(make, make_batch, contract, name):
    model, batch = make(name, contract, SMALL[name]).double(), make_batch(contract)
    noisy = dict(batch)
    for field in contract.group("behaviors"):
        column = torch.cat([batch[field.column], batch[field.column][:, :2]], dim=1)
        padding = torch.arange(8) >= batch["behavior_length"][:, None]
        noisy[field.column] = torch.where(padding, torch.randint(1, 9, padding.shape).to(column.dtype), column)
    torch.testing.assert_close(model(noisy), model(batch), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("lengths", [[0] * 16, [0] * 15 + [1], [0, 6] * 8], ids=["all empty", "one of one", "half"])
def test_empty_histories_give_numbers_in_losses_and_gradients(make, make_batch, contract, name, lengths):
    model, batch = make(name, contract, SMALL[name]).train(), make_batch(contract)
    batch["behavior_length"] = torch.tensor(lengths, dtype=torch.int32)
    logloss, loss = model.losses(batch, batch["label"])
    loss.backward()
    assert torch.stack([logloss, loss]).isfinite().all()
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert parameter.grad.to_dense().isfinite().all()
    assert all(module.batch_statistics.isfinite().all() for module in model.modules() if isinstance(module, BatchNormalization))


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_has_a_gradient(make_batch, contract, name):
    torch.manual_seed(0)
    model, batch = build(name, contract, {**SMALL[name], "init_std": 0.1}), make_batch(contract, rows=256)
    model.losses(batch, batch["label"])[1].backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.to_dense().count_nonzero() > 0, parameter_name


@pytest.mark.parametrize("name", SMALL)
def test_a_samples_score_does_not_depend_on_its_batch(make, make_batch, contract, name):
    model, batch = make(name, contract, SMALL[name]), make_batch(contract)
    together = assert_float32_scores(model, batch)
    for row in range(len(together)):
        alone = assert_float32_scores(model, {column: values[row : row + 1] for column, values in batch.items()})
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_where_torch_chooses_it_gives_numbers(make, make_batch, contract, name):
    model, batch = make(name, contract, SMALL[name]).train(), make_batch(contract)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.losses(batch, batch["label"])[1]
    loss.backward()
    assert loss.isfinite()


def test_a_weight_of_the_linear_part_is_of_one_field_alone(make, make_batch, contract):
    """An item that is popular as a candidate need not be so in a history."""
    model, batch = make("lr", contract, {}).double(), make_batch(contract)
    rows = model.linear.weights.embedding.rows
    assert set(rows) == {field.column for field in contract.fields if field.vocabulary}
    before = model(batch)
    with torch.no_grad():
        model.linear.weights.embedding.table.weight[rows["behavior_item_id"]] = 0.0
    same = batch["behavior_length"] == 0
    torch.testing.assert_close(model(batch)[same], before[same])
    assert (model(batch)[~same] != before[~same]).all()


@pytest.mark.parametrize("auxiliary", ["network", "inner_product"])
def test_diens_auxiliary_loss_is_the_papers(make, make_batch, contract, auxiliary):
    model, batch = make("dien", contract, {**SMALL["dien"], "auxiliary": auxiliary}).double(), make_batch(contract)
    _, h, e, layout = model._run(batch)
    torch.manual_seed(5)
    drawn = torch.randperm(len(e))
    drawn[::4] = torch.arange(len(e))[::4]  # some are no negatives
    expected = Peers(contract, model.config, model.state_dict()).auxiliary_loss(batch, layout.pad(e[drawn]).detach().numpy())
    assert model.auxiliary_loss(h, e, drawn, layout).item() == pytest.approx(expected, abs=1e-10)


def test_dien_shows_the_logloss_and_makes_it_and_the_auxiliary_loss_smaller(make, make_batch, contract):
    options = {**SMALL["dien"], "activation": "relu", "auxiliary_weight": 0.5}
    model, batch = make("dien", contract, options).double(), make_batch(contract)
    logloss, loss = model.losses(batch, batch["label"])
    logits = model(batch)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["label"].double())
    terms = len(logits) + float(logits.abs().max())  # each logit is rounded to float32, then their losses are added up
    assert abs(logloss.double() - expected) <= terms * UNIT
    without = make("dien", contract, {**options, "auxiliary_weight": 0.0}).double()
    assert loss > logloss
    assert torch.equal(*without.losses(batch, batch["label"]))
    networks = [make("dien", contract, {**SMALL["dien"], "auxiliary": "network", "auxiliary_weight": w}) for w in (0.5, 0.0)]
    assert ["auxiliary.1.weight" in network.state_dict() for network in networks] == [True, False]


def test_diens_negatives_are_drawn_from_torchs_generator(make, make_batch, contract):
    model, batch = make("dien", contract, SMALL["dien"]), make_batch(contract)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model.losses(batch, batch["label"])[1].item())
    assert losses[0] == losses[1] != losses[2]


def test_dien_sees_the_order_of_behaviors_and_din_does_not(make, make_batch, contract):
    batch = make_batch(contract)
    batch["behavior_length"].fill_(6)
    turned = {**batch, **{field.column: batch[field.column].flip(1) for field in contract.group("behaviors")}}
    din, dien = make("din", contract, SMALL["din"]), make("dien", contract, SMALL["dien"])
    din.double()
    torch.testing.assert_close(din(turned), din(batch), atol=1e-12, rtol=0)
    assert (dien(turned) - dien(batch)).abs().max() > 0.01


def test_a_history_without_a_next_behavior_has_no_auxiliary_loss(make, contract):
    model = make("dien", contract, SMALL["dien"])
    e = torch.randn(3, 12)
    assert model.auxiliary_loss(e, e, torch.tensor([2, 1, 0]), JaggedLayout(torch.tensor([1, 0, 1, 1]), 6)) == 0
    none = torch.zeros(0, 12)
    assert model.auxiliary_loss(none, none, torch.zeros(0, dtype=torch.int64), JaggedLayout(torch.tensor([0, 0]), 6)) == 0


def test_dien_scores_a_batch_without_any_behavior(make, make_batch, contract):
    model, batch = make("dien", contract, SMALL["dien"]).double(), make_batch(contract)
    batch["behavior_length"][:3] = 0
    without = {name: column[:3] for name, column in batch.items()}
    torch.testing.assert_close(model(without), model(batch)[:3])
