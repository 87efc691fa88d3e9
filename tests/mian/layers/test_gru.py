import pytest
import torch
from torch.func import functional_call

from mian.kernels import JaggedLayout
from mian.layers import GRU, OldestFirst, initialize

LENGTHS = torch.tensor([3, 0, 6, 1, 3])
PACKING = JaggedLayout(LENGTHS, 6)
ORDER = OldestFirst(PACKING)


def test_the_oldest_behaviors_come_first_those_of_long_histories_before_others():
    assert ORDER.counts == [4, 3, 3, 1, 1, 1]
    samples, steps = PACKING.samples[ORDER.places], PACKING.steps[ORDER.places]
    assert list(zip(samples.tolist(), steps.tolist(), strict=True))[:10] == [
        *((2, 5), (0, 2), (4, 2), (3, 0)),
        *((2, 4), (0, 1), (4, 1)),
        *((2, 3), (0, 0), (4, 0)),
    ]
    assert torch.equal(ORDER.places[ORDER.back], torch.arange(13))


def test_no_behaviors_at_all_have_no_states():
    order = OldestFirst(JaggedLayout(torch.zeros(3), 6))
    assert order.counts == []
    assert GRU(4, 2)(torch.zeros(0, 4), order).shape == (0, 2)


def test_without_attention_it_is_torchs_gru_whose_gate_is_turned_around():
    ours, theirs = GRU(4, 2), torch.nn.GRU(4, 2)
    initialize(ours, 0.7)
    torch.nn.init.normal_(ours.inputs.bias)
    turned = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, 1.0])[:, None]
    weights = {
        "weight_ih_l0": ours.inputs.weight * turned,
        "weight_hh_l0": ours.recurrent * turned,
        "bias_ih_l0": ours.inputs.bias * turned[:, 0],
        "bias_hh_l0": torch.zeros(6),
    }
    x = torch.randn(13, 4)
    states = ORDER.restore(ours(ORDER.arrange(x), ORDER))
    for sample, (begin, end) in enumerate(zip(PACKING.offsets[:-1], PACKING.offsets[1:], strict=True)):
        if LENGTHS[sample]:
            expected, _ = functional_call(theirs, weights, (x[begin:end].flip(0),))
            torch.testing.assert_close(states[begin:end].flip(0), expected)


@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_attention_of_0_keeps_the_state_and_of_1_is_none(attention):
    layer = GRU(4, 2)
    initialize(layer, 0.7)
    x = torch.randn(13, 4)
    states = layer(x, ORDER, torch.full((13,), attention))
    torch.testing.assert_close(states, layer(x, ORDER) if attention else torch.zeros(13, 2))


def test_gradients_are_those_of_the_function():
    torch.manual_seed(0)
    layer = GRU(3, 2).double()
    initialize(layer, 0.7)

    def states(x, attention, weight, bias, recurrent):
        weights = {"inputs.weight": weight, "inputs.bias": bias, "recurrent": recurrent}
        return functional_call(layer, weights, (x, ORDER, attention))

    x = torch.randn(13, 3, dtype=torch.double, requires_grad=True)
    attention = torch.rand(13, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(states, (x, attention, layer.inputs.weight, layer.inputs.bias, layer.recurrent))
