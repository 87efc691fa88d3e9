"""Histories with their padding, as an exported graph has them, give what packed ones give."""

import pytest
import torch

from mian.kernels import DenseLayout, JaggedLayout, attention, pool, softmax
from mian.layers import GRU, BehaviorAttention
from mian.layers.gru import reading_order

LENGTHS = torch.tensor([3, 0, 5, 1, 5])
T, WIDTH = 5, 8


@pytest.fixture
def layouts() -> tuple[JaggedLayout, DenseLayout]:
    return JaggedLayout(LENGTHS, T), DenseLayout(LENGTHS, T)


@pytest.fixture
def padded() -> torch.Tensor:
    """Vectors of all positions, of those that are not real too."""
    torch.manual_seed(0)
    return torch.randn(len(LENGTHS), T, WIDTH)


def real(dense: torch.Tensor, packed: JaggedLayout) -> torch.Tensor:
    """What a dense layout gives at the positions that are real."""
    return dense.index_select(0, packed.places)


def test_sums_and_softmaxes(layouts: tuple[JaggedLayout, DenseLayout], padded: torch.Tensor) -> None:
    packed, dense = layouts
    vectors, scores = padded, padded[:, :, 0]
    torch.testing.assert_close(dense.sum(dense.pack(vectors)), packed.sum(packed.pack(vectors)))
    weights = softmax(packed.pack(scores), packed)
    assert dense.real == len(LENGTHS) * T
    torch.testing.assert_close(dense.pad(dense.pack(vectors)), packed.pad(packed.pack(vectors)))
    padded_scores = dense.pad(dense.pack(scores)).masked_fill(~dense.mask, -torch.inf)
    expected = torch.softmax(padded_scores, dim=1).nan_to_num()
    torch.testing.assert_close(packed.pad(weights), expected)


def test_a_recurrent_network_leaves_positions_that_are_not_real_alone(
    layouts: tuple[JaggedLayout, DenseLayout], padded: torch.Tensor
) -> None:
    packed, _ = layouts
    gru = GRU(WIDTH, 4)
    for parameter in gru.parameters():
        torch.nn.init.normal_(parameter)
    weights = torch.rand(len(LENGTHS), T)
    with torch.no_grad():
        states = []
        for layout in layouts:
            order = reading_order(layout, padded, 4)
            arranged = gru(order.arrange(layout.pack(padded)), order, order.arrange(layout.pack(weights)))
            states.append(order.restore(arranged))
    torch.testing.assert_close(real(states[1], packed), states[0])


@pytest.mark.parametrize("length", [0, 2, T])
def test_candidates_attend_to_the_real_positions_of_one_history(padded: torch.Tensor, length: int) -> None:
    lengths = torch.tensor([length])
    layouts = JaggedLayout(lengths, T), DenseLayout(lengths, T)
    layer = BehaviorAttention(6, WIDTH, "tanh")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    candidates = torch.randn(7, 6)
    with torch.no_grad():
        packed, dense = (layer.one_history(candidates, layout.pack(padded[:1]), layout) for layout in layouts)
    torch.testing.assert_close(dense, packed)


def test_operators_of_torch_are_those_of_packed_histories(
    monkeypatch: pytest.MonkeyPatch, layouts: tuple[JaggedLayout, DenseLayout], padded: torch.Tensor
) -> None:
    packed, dense = layouts
    vectors, scores, heads = padded.repeat(1, 1, 3), padded[:, :, 0], 2
    with torch.no_grad():
        expected = (
            softmax(packed.pack(scores), packed),
            pool(packed.pack(scores), packed.pack(padded), packed)[0],
            attention(packed.pack(vectors), packed, heads),
        )
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        found = (
            softmax(dense.pack(scores), dense),
            pool(dense.pack(scores), dense.pack(padded), dense)[0],
            attention(dense.pack(vectors), dense, heads),
        )
    torch.testing.assert_close(real(found[0], packed), expected[0])
    torch.testing.assert_close(found[1], expected[1])
    torch.testing.assert_close(real(found[2], packed), expected[2])
