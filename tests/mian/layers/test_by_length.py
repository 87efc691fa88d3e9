import pytest
import torch

from mian.layers import PreLNTransformer, by_length, initialize


@pytest.fixture
def block():
    torch.manual_seed(0)
    layer = PreLNTransformer(4, 2, 2, 8, 0.0)
    initialize(layer, 0.5)
    return layer


@pytest.mark.parametrize("lengths", [[1], [0, 3, 20, 8, 9, 16, 17, 1, 0, 24], [24] * 5, [2, 2]], ids=str)
@pytest.mark.parametrize("steps", [24, 25, 30])
def test_it_is_the_layer_over_all_rows_and_positions(block, lengths, steps):
    lengths = torch.tensor(lengths, dtype=torch.int32)
    x = torch.randn(len(lengths), steps, 4)
    mask = torch.arange(steps) < lengths[:, None]
    at_least_one = mask.clone()
    at_least_one[:, 0] = True
    expected = block(x, at_least_one)
    output = by_length(block, x, lengths)
    assert output.shape == x.shape
    torch.testing.assert_close(output[mask], expected[mask])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_gradients_are_those_of_the_layer_over_all_rows(block, dtype):
    lengths = torch.tensor([5, 0, 12, 1], dtype=dtype)
    mask = torch.arange(12) < lengths[:, None]
    at_least_one = mask.clone()
    at_least_one[:, 0] = True
    values = torch.randn(4, 12, 4)
    grads = []
    for run in (lambda x: by_length(block, x, lengths), lambda x: block(x, at_least_one)):
        x = values.clone().requires_grad_()
        block.zero_grad()
        (run(x).square() * mask[:, :, None]).sum().backward()
        grads.append([x.grad, *(parameter.grad for parameter in block.parameters())])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_rows_that_are_all_empty_leave_gradients_of_0_and_not_none(block):
    output = by_length(block, torch.randn(3, 10, 4), torch.zeros(3, dtype=torch.int32))
    assert output.isfinite().all()
    output.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in block.parameters())


def test_a_length_past_the_end_means_all_positions(block):
    x = torch.randn(1, 3, 4)
    assert torch.equal(by_length(block, x, torch.tensor([7])), by_length(block, x, torch.tensor([3])))
