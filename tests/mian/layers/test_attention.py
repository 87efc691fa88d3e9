import math

import pytest
import torch

from mian.layers import InteractionAttention, initialize


def attention(fields=None, activation="tanh", candidate_width=3, width=2):
    torch.manual_seed(0)
    layer = InteractionAttention(candidate_width, width, fields, activation)
    initialize(layer, 0.5)
    return layer


def test_every_pair_is_the_candidate_beside_a_vector():
    candidate, vectors = torch.randn(1, 3), torch.randn(1, 1, 2)
    output, weights = attention()(candidate, vectors)
    torch.testing.assert_close(output, torch.cat([candidate, vectors[:, 0]], dim=1))
    torch.testing.assert_close(weights, torch.ones(1, 1))


@pytest.mark.parametrize("fields", [None, 4])
@pytest.mark.parametrize("activation", ["tanh", "none", "learned_temperature"])
def test_it_is_the_weighted_sum_of_the_pairs(fields, activation):
    layer, candidate, vectors = attention(fields, activation), torch.randn(5, 3), torch.randn(5, 4, 2)
    pairs = torch.cat([candidate[:, None].expand(-1, 4, -1), vectors], dim=2)
    output, weights = layer(candidate, vectors)
    torch.testing.assert_close(output, (weights[:, :, None] * pairs).sum(dim=1))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))


def test_vectors_that_are_not_real_count_for_nothing():
    layer, candidate, vectors = attention(), torch.randn(2, 3), torch.randn(2, 4, 2)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    output, weights = layer(candidate, vectors, mask)
    expected, _ = layer(candidate[:1], vectors[:1, :2])
    torch.testing.assert_close(output[:1], expected)
    assert (output[1] == 0).all()
    assert (weights[~mask] == 0).all()


def test_fields_have_weights_of_their_own_and_behaviors_share_theirs():
    candidate, vectors = torch.randn(6, 3), torch.randn(6, 4, 2)
    turned = vectors.flip(1)
    own, shared = attention(4), attention(None)
    torch.testing.assert_close(shared(candidate, turned)[1], shared(candidate, vectors)[1].flip(1))
    assert (own(candidate, turned)[1] - own(candidate, vectors)[1].flip(1)).abs().max() > 0.01


def test_tanh_lets_no_weight_over_30_behaviors_past_one_fifth_and_a_temperature_does():
    vectors = torch.full((1, 30, 1), -100.0)
    vectors[0, 7] = 100.0
    weight = {}
    for activation in ("tanh", "learned_temperature"):
        layer = attention(None, activation, candidate_width=1, width=1)
        torch.nn.init.ones_(layer.weight)
        if layer.score.log_temperature is not None:
            torch.nn.init.constant_(layer.score.log_temperature, -1.0)
        weight[activation] = layer(torch.zeros(1, 1), vectors)[1].max().item()
    assert weight["tanh"] == pytest.approx(math.e / (math.e + 29 / math.e)) == pytest.approx(0.203, abs=1e-3)
    assert weight["learned_temperature"] > 0.8


def test_what_the_softmax_cancels_is_no_parameter():
    assert {name for name, _ in attention(None, "none").named_parameters()} == {"weight"}
    assert {name for name, _ in attention(4, "none").named_parameters()} == {"weight", "candidate_weight", "bias"}
