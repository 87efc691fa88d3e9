import copy

import pytest
import torch

from mian.layers import BatchNormalization, Dice


def test_batches_are_normalized_by_their_own_statistics_in_training():
    layer, x = BatchNormalization(3, eps=1e-8), torch.randn(50, 3) * 4 + 2
    normalized = layer(x)
    torch.testing.assert_close(normalized.mean(0), torch.zeros(3))
    torch.testing.assert_close(normalized.var(0, unbiased=False), torch.ones(3))
    torch.testing.assert_close(layer.batch_statistics, torch.stack([x.mean(0), x.var(0, unbiased=False)]))


def test_moving_averages_follow_when_they_are_told_and_are_what_counts_elsewhere():
    layer, x = BatchNormalization(3, eps=1e-8, momentum=0.25), torch.randn(50, 3) * 4 + 2
    layer(x)
    assert torch.equal(layer.moving, torch.tensor([[0.0] * 3, [1.0] * 3]))
    layer.follow()
    mean, variance = 0.25 * x.mean(0), 0.75 + 0.25 * x.var(0, unbiased=False)
    torch.testing.assert_close(layer.moving, torch.stack([mean, variance]))
    torch.testing.assert_close(layer.eval()(x[:1]), (x[:1] - mean) / variance.sqrt())
    layer.follow()
    torch.testing.assert_close(layer.moving[0], 0.75 * mean + 0.25 * x.mean(0))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_are_normalized_by_the_moving_averages_and_move_nothing(rows):
    layer = BatchNormalization(2, eps=0.0)
    layer.moving.copy_(torch.tensor([[1.0, 2.0], [4.0, 9.0]]))
    before = layer.moving.clone()
    torch.testing.assert_close(layer(torch.tensor([[3.0, -1.0]])[:rows]), torch.tensor([[1.0, -1.0]])[:rows])
    layer.follow()
    torch.testing.assert_close(layer.moving, before)


def test_the_averages_are_kept_with_the_weights_and_a_batchs_are_not():
    assert set(Dice(4).state_dict()) == {"alpha", "normalization.moving"}


def test_dice_is_relu_with_a_soft_bend_where_the_data_lies():
    layer = Dice(1).eval()
    layer.normalization.moving.copy_(torch.tensor([[5.0], [1e-6]]))  # all data at 5: a bend as sharp as a step
    s = torch.tensor([[-4.0], [4.9], [5.1], [9.0]])
    torch.testing.assert_close(layer(s), torch.tensor([[0.0], [0.0], [5.1], [9.0]]))
    torch.nn.init.constant_(layer.alpha, 0.5)
    torch.testing.assert_close(layer(s), torch.tensor([[-2.0], [2.45], [5.1], [9.0]]))


def test_gradients_go_through_the_batchs_statistics():
    layer = Dice(2).double()
    torch.nn.init.normal_(layer.alpha)
    assert torch.autograd.gradcheck(layer, torch.randn(6, 2, dtype=torch.double, requires_grad=True))


def test_what_is_stored_moves_no_weight():
    layer = Dice(2)
    before = copy.deepcopy(layer.state_dict())
    layer(torch.randn(8, 2)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("count", [5, 2, 1, 0])
def test_rows_that_do_not_count_change_no_statistics(count):
    torch.manual_seed(0)
    alone, beside = (BatchNormalization(3, 1e-8) for _ in range(2))
    x = torch.randn(7, 3)
    beside.counted = torch.arange(7) < count
    torch.testing.assert_close(beside(x)[:count], alone(x[:count]))
    torch.testing.assert_close(beside.batch_statistics, alone.batch_statistics)
