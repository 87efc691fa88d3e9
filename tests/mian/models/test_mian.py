import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mian.contract import ContractError
from mian.models import Mian, MianConfig
from mian.models.mian import PARTS
from tests.factories import BEHAVIORS, CONTRACTS, USER, make_contract
from tests.support.arithmetic import assert_float32_scores
from tests.support.paper_numpy import Paper

OPTIONS = [
    {},
    {"score_activation": "none"},
    {"score_activation": "learned_temperature"},
    {"global_fusion": "weighted_concat"},
    {"global_fusion": "weighted_concat", "score_activation": "learned_temperature"},
    {"global_fusion": "scaled_concat"},
    {"positions": "none"},
    {"max_positions": 2},
    {"heads": 3, "head_dim": 5, "ffn_multiplier": 2},
    {"mlp": (12, 9, 6)},
    {"mlp": ()},
    {"transformer": "post_ln"},
    {"transformer": "none"},
    {"without": ("iuim",)},
    {"without": ("icim",)},
    {"without": ("ibim",)},
    {"without": ("gim",)},
    {"without": ("iuim", "icim")},
]


def padded(batch, contract, length, fill=None):
    """The same rows in columns of ``length`` behaviors; with ``fill``, a generator, padding is random instead of 0."""
    wider = dict(batch)
    for field in contract.group("behaviors"):
        column = batch[field.column]
        wider[field.column] = F.pad(column, (0, length - column.shape[1]))
        if fill is not None:
            padding = torch.arange(length) >= batch["behavior_length"][:, None]
            noise = torch.randint(1, 9, padding.shape, generator=fill).to(column.dtype)
            wider[field.column] = torch.where(padding, noise, wider[field.column])
    return wider


def assert_same_scores(model, batch, other):
    """Logits to 1e-12 in float64, and in float32 both no further from them than rounding explains: the same function."""
    logits = assert_float32_scores(model, batch)
    assert logits.std() > 0.1
    torch.testing.assert_close(assert_float32_scores(model, other), logits, atol=1e-12, rtol=0)


def assert_the_papers_scores(model, contract, batch, spread):
    expected = Paper(contract, model.config, model.state_dict()).logits(batch)
    assert np.std(expected) > spread
    np.testing.assert_allclose(assert_float32_scores(model, batch), expected, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_papers_equations_under_every_option(contract, make_batch, make_model, options):
    model, batch = make_model(contract, **options), make_batch(contract)
    assert_the_papers_scores(model, contract, batch, spread=0.1)


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("options", [{}, {"global_fusion": "weighted_concat"}, {"without": ("ibim", "gim")}], ids=str)
def test_it_is_the_papers_equations_over_every_contract(make_batch, make_model, name, options):
    contract = CONTRACTS[name]
    model, batch = make_model(contract, **options), make_batch(contract)
    assert_the_papers_scores(model, contract, batch, spread=0.03)


def test_it_is_the_papers_equations_at_the_papers_size(make_batch):
    contract = make_contract(*CONTRACTS["all groups"].fields, length=30)
    torch.manual_seed(3)
    model, batch = Mian(contract, MianConfig(init_std=0.2)).eval(), make_batch(contract, rows=31)
    assert_the_papers_scores(model, contract, batch, spread=0.05)


@pytest.mark.parametrize("positions", ["learned", "none"])
def test_a_sample_padded_to_30_or_to_50_scores_the_same(make_batch, make_model, positions):
    contract = make_contract(*CONTRACTS["all groups"].fields, length=30)
    model, batch = make_model(contract, positions=positions), make_batch(contract, rows=62)
    assert_same_scores(model, batch, padded(batch, contract, 50))


@pytest.mark.parametrize("length", [6, 7, 50])
def test_what_stands_in_the_padding_changes_nothing(contract, make_batch, make_model, length):
    model, batch = make_model(contract), make_batch(contract)
    exact = copy.deepcopy(model).double()
    weights = exact.explain(batch)["behaviors"]
    for seed in (1, 2):
        other = padded(batch, contract, length, torch.Generator().manual_seed(seed))
        assert_same_scores(model, batch, other)
        torch.testing.assert_close(exact.explain(other)["behaviors"][:, :6], weights, atol=1e-12, rtol=0)


def test_padding_has_no_gradient(contract, make_batch, make_model, loss_of):
    model, batch = make_model(contract).double(), make_batch(contract)
    loss_of(model, batch).backward()
    plain = [parameter.grad.to_dense().clone() for parameter in model.parameters()]
    model.zero_grad()
    loss_of(model, padded(batch, contract, 9, torch.Generator().manual_seed(1))).backward()
    for parameter, grad in zip(model.parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad.to_dense(), grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("lengths", [[0] * 16, [0] * 15 + [6], [0, 1] * 8], ids=["all empty", "all but one", "half"])
def test_empty_histories_give_numbers_in_output_and_gradients(contract, make_batch, make_model, loss_of, lengths):
    model, batch = make_model(contract), make_batch(contract)
    batch["behavior_length"] = torch.tensor(lengths, dtype=torch.int32)
    model.train()
    loss_of(model, batch).backward()
    assert model(batch).isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
        assert grad.isfinite().all(), name
    assert (model.explain(batch)["behaviors"][batch["behavior_length"] == 0] == 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_has_a_gradient(contract, make_batch, loss_of, options):
    torch.manual_seed(0)
    model, batch = Mian(contract, MianConfig(**options)), make_batch(contract, rows=256)
    loss_of(model, batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().count_nonzero() > 0, name


def test_the_rows_of_a_table_that_were_seen_have_gradients_and_padding_has_none(contract, make_batch, make_model, loss_of):
    model, batch = make_model(contract), make_batch(contract, rows=8)
    loss_of(model, batch).backward()
    for name, rows in model.embedding.rows.items():
        columns = [field.column for field in contract.fields if field.vocabulary == name]
        seen = torch.cat([batch[column].flatten() for column in columns]).unique()
        grad = model.embedding.table.weight.grad.to_dense()[rows]
        trained = grad.abs().sum(dim=1).nonzero().flatten()
        assert trained.tolist() == [row for row in seen.tolist() if row != 0]
        assert (model.embedding.table.weight[rows][0] == 0).all()


def test_tables_and_dense_parameters_are_all_parameters_once(contract, make_batch, make_model, loss_of):
    model = make_model(contract)
    loss_of(model, make_batch(contract)).backward()
    tables, dense = {name: table.weight for name, table in model.tables().items()}, model.dense_parameters()
    assert all(parameter.grad.is_sparse for parameter in tables.values())
    assert not any(parameter.grad.is_sparse for parameter in dense.values())
    assert {**tables, **dense} == dict(model.named_parameters())
    assert list(tables) == ["embedding.table.weight"]


def test_dropout_is_active_in_training_alone(contract, make_batch, make_model):
    model, batch = make_model(contract), make_batch(contract)
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))
    without = make_model(contract, dropout=0.0).train()
    assert torch.equal(without(batch), model.eval()(batch))


def test_a_samples_score_does_not_depend_on_its_batch(contract, make_batch, make_model):
    model, batch = make_model(contract), make_batch(contract)
    together = assert_float32_scores(model, batch)
    for row in range(len(together)):
        alone = assert_float32_scores(model, {name: column[row : row + 1] for name, column in batch.items()})
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-12, rtol=0)


def test_the_order_of_behaviors_counts_with_learned_positions_and_not_with_none(contract, make_batch, make_model):
    batch = make_batch(contract)
    batch["behavior_length"].fill_(6)
    turned = {**batch, **{field.column: batch[field.column].flip(1) for field in contract.group("behaviors")}}
    without, learned = make_model(contract, positions="none").double(), make_model(contract)
    torch.testing.assert_close(without(turned), without(batch), atol=1e-12, rtol=0)
    assert (learned(turned) - learned(batch)).abs().max() > 0.01


def test_explain_gives_the_weights_of_every_attention(contract, make_batch, make_model):
    model, batch = make_model(contract).double(), make_batch(contract)
    weights = model.explain(batch)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "behaviors": (16, 6),
        "user": (16, 3),
        "context": (16, 2),
        "global": (16, 7),
    }
    assert model.part_names == ("e_i", "e_c", "e_b", "e_u", "R_ibim", "R_iuim", "R_icim")
    assert model.user_columns == ("user_age", "user_favorite", "user_tenure")
    for name, weight in weights.items():
        assert (weight >= 0).all()
        total = (batch["behavior_length"] > 0).double() if name == "behaviors" else torch.ones(16).double()
        torch.testing.assert_close(weight.sum(dim=1), total)
    padding = torch.arange(6) >= batch["behavior_length"][:, None]
    assert (weights["behaviors"][padding] == 0).all()
    assert (weights["behaviors"][~padding] > 0).all()


def test_without_an_activation_the_weights_of_behaviors_do_not_depend_on_the_candidate(contract, make_batch, make_model):
    model, batch = make_model(contract, score_activation="none"), make_batch(contract)
    other = {**batch, "candidate_item_id": batch["candidate_item_id"].flip(0)}
    assert torch.equal(model.explain(other)["behaviors"], model.explain(batch)["behaviors"])
    assert not torch.equal(model.explain(other)["user"], model.explain(batch)["user"])


@pytest.mark.parametrize(
    ("name", "parts", "attentions"),
    [
        ("no user fields", ("e_i", "e_c", "e_b", "R_ibim", "R_icim"), {"behaviors", "context", "global"}),
        ("no context fields", ("e_i", "e_b", "e_u", "R_ibim", "R_iuim"), {"behaviors", "user", "global"}),
        ("no behaviors", ("e_i", "e_c", "e_u", "R_iuim", "R_icim"), {"user", "context", "global"}),
        ("candidate alone", ("e_i",), {"global"}),
    ],
)
def test_a_group_that_a_contract_lacks_is_left_out(make_batch, make_model, name, parts, attentions):
    model = make_model(CONTRACTS[name])
    assert model.part_names == parts
    assert set(model.explain(make_batch(CONTRACTS[name]))) == attentions


@pytest.mark.parametrize(
    ("without", "parts", "attentions"),
    [
        ("iuim", "R_iuim", "user"),
        ("icim", "R_icim", "context"),
        ("ibim", "R_ibim", "behaviors"),
    ],
)
def test_a_module_that_is_left_out_takes_its_interactive_part_along(contract, make_batch, make_model, without, parts, attentions):
    model = make_model(contract, without=(without,))
    assert model.part_names == tuple(name for name in PARTS if name != parts)
    assert set(model.explain(make_batch(contract))) == {"behaviors", "user", "context", "global"} - {attentions}


def test_without_gim_there_are_no_weights_of_parts(contract, make_batch, make_model):
    model = make_model(contract, without=("gim",))
    assert model.part_names == PARTS
    assert set(model.explain(make_batch(contract))) == {"behaviors", "user", "context"}


def test_without_ibim_there_is_no_transformer_and_there_are_no_positions(contract, make_model):
    left = {name.split(".")[0] for name, _ in make_model(contract, without=("ibim",)).named_parameters()}
    assert not left & {"transformer", "positions", "item_behaviors"}


def test_a_contract_without_candidate_fields_is_refused():
    with pytest.raises(ContractError, match=r"contract 'small' has no candidate field"):
        Mian(make_contract(*BEHAVIORS, *USER), MianConfig())


@pytest.mark.parametrize("name", CONTRACTS)
def test_logits_are_one_number_a_sample_and_the_batch_is_left_as_it_was(make_batch, make_model, name):
    batch = make_batch(CONTRACTS[name])
    before = {column: values.clone() for column, values in batch.items()}
    logits = make_model(CONTRACTS[name])(batch)
    assert (logits.shape, logits.dtype) == ((16,), torch.float32)
    assert all(torch.equal(batch[column], values) for column, values in before.items())


def test_ids_may_be_int64(contract, make_batch, make_model):
    model, batch = make_model(contract), make_batch(contract)
    wide = {name: column.long() if column.dtype == torch.int32 else column for name, column in batch.items()}
    assert torch.equal(model(wide), model(batch))


def test_weights_that_are_saved_and_loaded_give_the_same_scores(contract, make_batch, make_model, tmp_path):
    model, batch = make_model(contract), make_batch(contract)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = Mian(contract, model.config).eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(batch), model(batch))


def test_weights_start_from_a_truncated_normal_of_the_papers_deviation(contract):
    torch.manual_seed(0)
    for name, parameter in Mian(contract, MianConfig()).named_parameters():
        if parameter.ndim >= 2:
            assert parameter.abs().max() <= 0.04, name
            assert parameter.count_nonzero() > 0, name
        else:
            assert (parameter == (1 if name.endswith("norm.weight") else 0)).all(), name


@pytest.mark.parametrize("bad", [{"hedas": 8}, {"heads": 0}, {"dropout": 1.0}, {"positions": "sine"}, {"mlp": (32, 0)}], ids=str)
def test_options_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValidationError):
        MianConfig(**bad)


def test_the_papers_settings_are_the_defaults():
    config = MianConfig()
    assert (config.heads, config.mlp, config.dropout, config.init_std) == (8, (32, 8), 0.2, 0.02)
    assert (config.score_activation, config.global_fusion, config.positions) == ("tanh", "project", "learned")
