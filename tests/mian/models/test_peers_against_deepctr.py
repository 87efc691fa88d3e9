"""Each peer against DeepCTR-Torch 0.3.0: the same weights and inputs in float64, logits to 1e-10.

Fields are categorical: DeepCTR puts a number as it is into its networks, and leaves it out of products; here it is a vector like any other.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mian.contract import Contract
from mian.models import ClickModel, build
from tests.factories import BEHAVIORS, CANDIDATE, CONTEXT, USER, categorical, make_contract
from tests.support import deepctr
from tests.support.arithmetic import UNIT
from tests.support.deepctr import HISTORY, columns, copy_gru, copy_linear, copy_mlp, copy_unit, copy_vectors, models, rows
from tests.support.perturbed import perturbed

pytestmark = pytest.mark.usefixtures("float64")  # DeepCTR makes tensors of the default type on its way

WIDTH = 4
POOLED_LAST = "candidate user context history"
FIELDS = [
    field
    for field in (*CANDIDATE, *BEHAVIORS, *USER, *CONTEXT, categorical("user", "home", "shop.category"))
    if field.vocabulary is not None
]
#: DeepCTR counts the fields of its CIN by their tables, so that no two may share one.
OWN_VOCABULARIES = [
    categorical("candidate", "item_id", "items"),
    categorical("behaviors", "category", "shop.category"),
    USER[0],
    CONTEXT[0],
]


@pytest.fixture
def contract() -> Contract:
    return make_contract(*FIELDS)


@pytest.fixture
def make() -> Callable[..., Any]:
    """A peer in evaluation mode, whose weights, biases and moving averages are large enough for differences to show."""

    def make(name: str, contract: Contract, **options: Any) -> Any:
        torch.manual_seed(1)
        return perturbed(build(name, contract, {"init_std": 0.5, **options}))

    return make


def assert_same(ours: ClickModel, theirs: Any, contract: Contract, batch: dict[str, torch.Tensor], **how: Any) -> None:
    expected = deepctr.logits(theirs.double(), rows(contract, batch, theirs, **how).double())
    with torch.no_grad():
        got = ours.double()(batch)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


def their_input(contract: Contract, blocks: str = POOLED_LAST) -> torch.Tensor:
    """Where the columns of what DeepCTR's networks read lie in ours, which is candidate, history, user and context in this order."""
    groups = {"candidate": "candidate", "history": "behaviors", "user": "user", "context": "context"}
    places, end = {}, 0
    for name, group in groups.items():
        start, end = end, end + WIDTH * len(contract.group(group))
        places[name] = torch.arange(start, end)
    return torch.cat([places[name] for name in blocks.split()])


@pytest.fixture
def wide(contract: Contract) -> list[Any]:
    """The fields as DeepCTR's linear models read them: none shares a weight."""
    return columns(contract, WIDTH, shared=False)


def test_lr(contract, make, make_batch, wide):
    ours = make("lr", contract)
    theirs = models.WDL(wide, columns(contract, WIDTH), dnn_hidden_units=())
    copy_linear(theirs, ours.linear, contract)
    assert_same(ours, theirs, contract, make_batch(contract, rows=64))


def test_fm_is_deepfm_without_its_network(contract, make, make_batch, wide):
    ours = make("fm", contract, embedding_dim=WIDTH)
    theirs = models.DeepFM(wide, columns(contract, WIDTH), dnn_hidden_units=())
    copy_linear(theirs, ours.linear, contract)
    copy_vectors(theirs.embedding_dict, ours.fields, contract)
    assert_same(ours, theirs, contract, make_batch(contract, rows=64))


@pytest.mark.parametrize(("name", "theirs", "linear"), [("wide_deep", "WDL", "wide"), ("deepfm", "DeepFM", "linear")])
def test_wide_deep_and_deepfm(contract, make, make_batch, wide, name, theirs, linear):
    ours = make(name, contract, embedding_dim=WIDTH, mlp=(12, 7))
    theirs = getattr(models, theirs)(wide, columns(contract, WIDTH), dnn_hidden_units=(12, 7))
    copy_linear(theirs, getattr(ours, linear), contract)
    copy_vectors(theirs.embedding_dict, ours.fields, contract)
    copy_mlp(theirs.dnn, ours.deep, their_input(contract))
    theirs.dnn_linear.weight = ours.deep_logit.weight
    assert_same(ours, theirs, contract, make_batch(contract, rows=64))


@pytest.mark.parametrize(
    ("name", "options", "parameterization"),
    [("dcn", {}, "vector"), ("dcn_v2", {"structure": "parallel"}, "matrix")],
)
def test_dcn_but_for_the_linear_part_that_deepctr_adds(contract, make, make_batch, wide, name, options, parameterization):
    ours = make(name, contract, embedding_dim=WIDTH, mlp=(12, 7), cross_layers=3, **options)
    theirs = models.DCN(wide, columns(contract, WIDTH), 3, parameterization, dnn_hidden_units=(12, 7))
    for table in theirs.linear_model.parameters():
        torch.nn.init.zeros_(table)
    copy_vectors(theirs.embedding_dict, ours.fields, contract)
    copy_mlp(theirs.dnn, ours.deep, their_input(contract))
    places = their_input(contract)
    with torch.no_grad():
        kernels = ours.cross.weight[:, places, None] if name == "dcn" else ours.cross.weight[:, places][:, :, places]
        theirs.crossnet.kernels.copy_(kernels)
        theirs.crossnet.bias.copy_(torch.stack(list(ours.cross.bias))[:, places, None])
        theirs.dnn_linear.weight.copy_(torch.cat([ours.logit.weight[:, places], ours.logit.weight[:, len(places) :]], dim=1))
        theirs.out.bias.copy_(ours.logit.bias)
    assert_same(ours, theirs, contract, make_batch(contract, rows=64))


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("split_half", [False, True])
def test_xdeepfm_but_for_the_biases_that_deepctr_has_in_its_cin(make, make_batch, activation, split_half):
    contract = make_contract(*OWN_VOCABULARIES)
    options = {"cin": (6, 4, 5), "cin_activation": activation, "cin_split_half": split_half}
    ours = make("xdeepfm", contract, embedding_dim=WIDTH, mlp=(12, 7), **options)
    theirs = models.xDeepFM(
        columns(contract, WIDTH, shared=False),
        columns(contract, WIDTH),
        dnn_hidden_units=(12, 7),
        cin_layer_size=(6, 4, 5),
        cin_split_half=split_half,
        cin_activation="linear" if activation == "identity" else activation,
    )
    copy_linear(theirs, ours.linear, contract)
    copy_vectors(theirs.embedding_dict, ours.fields, contract)
    copy_mlp(theirs.dnn, ours.deep, their_input(contract))
    theirs.dnn_linear.weight, theirs.cin_linear.weight = ours.deep_logit.weight, ours.cin_logit.weight
    fields = torch.tensor([0, 2, 3, 1])  # theirs in ours: the history is last
    with torch.no_grad():
        for number, (layer, weight) in enumerate(zip(theirs.cin.conv1ds, ours.cin.weights, strict=True)):
            pair_weights = weight.view(len(weight), -1, 4)[:, :, fields]  # rows of the layer before times fields
            pair_weights = pair_weights[:, fields] if number == 0 else pair_weights
            layer.weight.copy_(pair_weights.flatten(1)[:, :, None])
            layer.bias.zero_()
    assert_same(ours, theirs, contract, make_batch(contract, rows=64))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(("activation", "theirs"), [("dice", "Dice"), ("sigmoid", "sigmoid"), ("relu", "relu")])
def test_din(contract, make, make_batch, softmax, activation, theirs):
    """With ReLU in the last layers: DeepCTR's fail with Dice there."""
    options = {"unit": (9, 5), "unit_activation": activation, "softmax": softmax, "activation": "relu", "mlp": (12, 7)}
    ours = make("din", contract, embedding_dim=WIDTH, **options)
    theirs = models.DIN(
        columns(contract, WIDTH, HISTORY),
        [field.name for field in contract.group("behaviors")],
        dnn_hidden_units=(12, 7),
        att_hidden_size=(9, 5),
        att_activation=theirs,
        att_weight_normalization=softmax,
    )
    copy_vectors(theirs.embedding_dict, ours.embedding, contract)
    copy_unit(theirs.attention.local_att, ours.unit)
    copy_mlp(theirs.dnn, ours.mlp, their_input(contract))
    with torch.no_grad():
        theirs.dnn_linear.weight.copy_(ours.logit.weight)
        theirs.out.bias.copy_(ours.logit.bias)
    assert_same(ours, theirs, contract, make_batch(contract, rows=64), history=HISTORY)


@pytest.fixture
def dien(contract, make) -> tuple[Any, Any]:
    """Ours and theirs."""
    options = {"attention": "unit", "unit": (9, 5), "auxiliary": "network", "mlp": (12, 7), "activation": "relu"}
    ours = make("dien", contract, embedding_dim=WIDTH, **options)
    theirs = models.DIEN(
        columns(contract, WIDTH, HISTORY),
        [field.name for field in contract.group("behaviors")],
        gru_type="AUGRU",
        dnn_hidden_units=(12, 7),
        att_hidden_units=(9, 5),
        att_activation="sigmoid",
        att_weight_normalization=True,
    )
    copy_vectors(theirs.embedding_dict, ours.embedding, contract)
    copy_gru(theirs.interest_extractor.gru, ours.extractor, update_is_share_kept=True)
    copy_gru(theirs.interest_evolution.interest_evolution.rnn, ours.evolution, update_is_share_kept=False)
    copy_unit(theirs.interest_evolution.attention.local_att, ours.unit)
    copy_mlp(theirs.dnn, ours.mlp, their_input(contract, "history candidate user context"))
    with torch.no_grad():
        theirs.linear.weight.copy_(ours.logit.weight)
        theirs.out.bias.copy_(ours.logit.bias)
    return ours, theirs


def test_diens_auxiliary_loss_is_twice_deepctrs_which_is_the_mean_over_its_two_terms(contract, dien, make_batch):
    ours = dien[0].double()
    extractor = models.dien.InterestExtractor(8, use_neg=True)
    copy_mlp(
        extractor.auxiliary_net,
        torch.nn.Sequential(*ours.auxiliary[0], ours.auxiliary[1], torch.nn.Sigmoid(), torch.nn.Dropout()),
    )
    extractor.double()
    extractor.auxiliary_net.register_forward_hook(lambda net, inputs, probabilities: probabilities.float())  # as its labels are
    batch = make_batch(contract)
    _, h, e, layout = ours._run(batch)
    drawn = torch.arange(len(e)).roll(len(e) // 2)
    assert (e[drawn] != e).any(dim=1).all()  # DeepCTR leaves none out
    lengths = layout.lengths
    turned = (lengths[:, None] - 1 - torch.arange(6)).clamp(min=0)[:, :, None].expand(-1, -1, 8)  # the oldest first
    states, next_ones, others = (layout.pad(vectors).gather(1, turned)[lengths > 0] for vectors in (h, e, e[drawn]))
    expected = extractor._cal_auxiliary_loss(states[:, :-1], next_ones[:, 1:], others[:, 1:], lengths[lengths > 0] - 1)
    terms = 2 * len(e)  # two probabilities a behavior, rounded to float32 and their losses added up
    assert abs(ours.auxiliary_loss(h, e, drawn, layout) - 2 * expected) <= terms * UNIT * 2 * expected


def test_dien_with_the_attention_that_deepctr_has(contract, dien, make_batch):
    """The paper's own, ``h W e_a``, is tested against NumPy."""
    assert_same(*dien, contract, make_batch(contract, rows=64), history=HISTORY, oldest_first=True)
