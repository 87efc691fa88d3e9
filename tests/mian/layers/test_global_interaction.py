import pytest
import torch

from mian.layers import ConcatenatedGlobalInteraction, ProjectedGlobalInteraction, initialize

WIDTHS = (3, 5, 2)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return [torch.randn(4, width) for width in WIDTHS]


def test_projected_parts_are_added_up_by_weight(parts):
    layer = ProjectedGlobalInteraction(WIDTHS, 6, "tanh").double()
    initialize(layer, 0.5)
    output, weights = layer(parts)
    projected = [part @ projection.T for projection, part in zip(layer.projection.split(WIDTHS, dim=1), parts, strict=True)]
    raw = torch.stack([part @ w + b for part, w, b in zip(projected, layer.weight, layer.bias, strict=True)], dim=1)
    torch.testing.assert_close(weights, torch.softmax(torch.tanh(raw), dim=1))
    torch.testing.assert_close(output, sum(weights[:, [n]] * part for n, part in enumerate(projected)))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    assert output.shape == (4, layer.output_width)


def test_concatenated_parts_are_scaled_by_their_weights(parts):
    layer = ConcatenatedGlobalInteraction(WIDTHS, "tanh").double()
    initialize(layer, 0.5)
    output, weights = layer(parts)
    assert output.shape == (4, layer.output_width) == (4, 10)
    torch.testing.assert_close(output[:, 3:8], weights[:, [1]] * parts[1])
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))


def test_before_training_of_scores_all_parts_weigh_the_same(parts):
    for layer in (ProjectedGlobalInteraction(WIDTHS, 6, "tanh"), ConcatenatedGlobalInteraction(WIDTHS, "tanh")):
        torch.testing.assert_close(layer.double()(parts)[1], torch.full((4, 3), 1 / 3))


def test_a_part_of_zeros_stays_zeros_in_the_sum(parts):
    layer = ProjectedGlobalInteraction(WIDTHS, 6, "tanh").double()
    initialize(layer, 0.5)
    zeros = [torch.zeros_like(part) for part in parts]
    assert (layer(zeros)[0] == 0).all()
