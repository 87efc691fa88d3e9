import math

import pytest
import torch

from mian.kernels import JaggedLayout
from mian.layers import BehaviorAttention, FieldAttention, initialize


def field_attention(fields, activation="tanh"):
    torch.manual_seed(0)
    layer = FieldAttention(3, 2, fields, activation)
    initialize(layer, 0.5)
    return layer


def behavior_attention(activation="tanh", candidate_width=3, width=2):
    torch.manual_seed(0)
    layer = BehaviorAttention(candidate_width, width, activation)
    initialize(layer, 0.5)
    return layer


def over(layer, candidate, vectors, lengths=None):
    """The layer over padded vectors ``(B, N, d)``, all real unless ``lengths`` says otherwise."""
    if isinstance(layer, FieldAttention):
        return layer(candidate, vectors)
    layout = JaggedLayout(
        torch.full((len(vectors),), vectors.shape[1]) if lengths is None else torch.tensor(lengths), vectors.shape[1]
    )
    output, weights = layer(candidate, layout.pack(vectors), layout)
    return output, layout.pad(weights)


@pytest.mark.parametrize("make", [behavior_attention, lambda: field_attention(1)], ids=["behaviors", "fields"])
def test_every_pair_is_the_candidate_beside_a_vector(make):
    layer, candidate, vectors = make(), torch.randn(1, 3), torch.randn(1, 1, 2)
    output, weights = over(layer, candidate, vectors)
    torch.testing.assert_close(output, torch.cat([candidate, vectors[:, 0]], dim=1))
    torch.testing.assert_close(weights, torch.ones(1, 1))


@pytest.mark.parametrize("activation", ["tanh", "none", "learned_temperature"])
@pytest.mark.parametrize(
    "make", [behavior_attention, lambda activation: field_attention(4, activation)], ids=["behaviors", "fields"]
)
def test_it_is_the_weighted_sum_of_the_pairs(make, activation):
    layer, candidate, vectors = make(activation), torch.randn(5, 3), torch.randn(5, 4, 2)
    pairs = torch.cat([candidate[:, None].expand(-1, 4, -1), vectors], dim=2)
    output, weights = over(layer, candidate, vectors)
    torch.testing.assert_close(output, (weights[:, :, None] * pairs).sum(dim=1))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))


def test_vectors_that_are_not_real_count_for_nothing():
    layer, candidate, vectors = behavior_attention(), torch.randn(2, 3), torch.randn(2, 4, 2)
    output, weights = over(layer, candidate, vectors, [2, 0])
    expected, _ = over(layer, candidate[:1], vectors[:1, :2])
    torch.testing.assert_close(output[:1], expected)
    assert (output[1] == 0).all()
    assert (weights[0, 2:] == 0).all()
    assert (weights[1] == 0).all()


def test_fields_have_weights_of_their_own_and_behaviors_share_theirs():
    candidate, vectors = torch.randn(6, 3), torch.randn(6, 4, 2)
    turned = vectors.flip(1)
    own, shared = field_attention(4), behavior_attention()
    torch.testing.assert_close(over(shared, candidate, turned)[1], over(shared, candidate, vectors)[1].flip(1))
    assert (over(own, candidate, turned)[1] - over(own, candidate, vectors)[1].flip(1)).abs().max() > 0.01


def test_tanh_lets_no_weight_over_30_behaviors_past_one_fifth_and_a_temperature_does():
    vectors = torch.full((1, 30, 1), -100.0)
    vectors[0, 7] = 100.0
    weight = {}
    for activation in ("tanh", "learned_temperature"):
        layer = behavior_attention(activation, candidate_width=1, width=1)
        torch.nn.init.ones_(layer.weight)
        if layer.score.log_temperature is not None:
            torch.nn.init.constant_(layer.score.log_temperature, -1.0)
        weight[activation] = over(layer, torch.zeros(1, 1), vectors)[1].max().item()
    assert weight["tanh"] == pytest.approx(math.e / (math.e + 29 / math.e)) == pytest.approx(0.203, abs=1e-3)
    assert weight["learned_temperature"] > 0.8


def test_what_the_softmax_cancels_is_no_parameter():
    assert {name for name, _ in behavior_attention("none").named_parameters()} == {"weight"}
    assert {name for name, _ in field_attention(4, "none").named_parameters()} == {"weight", "candidate_weight", "bias"}
