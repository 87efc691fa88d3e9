import torch
from torch import nn

from mian.layers import EmbeddingTable, initialize


def test_matrices_are_normal_cut_off_at_two_deviations_and_biases_are_0():
    torch.manual_seed(0)
    linear = nn.Linear(300, 300)
    initialize(linear, 0.02)
    assert linear.weight.abs().max() <= 0.04
    assert abs(linear.weight.mean()) < 1e-3
    assert 0.017 < linear.weight.std() < 0.0185  # 0.88 of the deviation before the cut
    assert (linear.bias == 0).all()


def test_layer_normalization_starts_at_gamma_1_and_beta_0_and_padding_at_0():
    module = nn.Sequential(nn.LayerNorm(3), EmbeddingTable(5, 3, padding=[0]))
    nn.init.constant_(module[0].weight, 7.0)
    initialize(module, 0.02)
    assert (module[0].weight == 1).all()
    assert (module[0].bias == 0).all()
    assert (module[1].weight[0] == 0).all()
    assert module[1].weight[1:].count_nonzero() == 12


def test_parameters_of_children_and_of_no_layer_are_drawn_too():
    module = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    module.table = nn.Parameter(torch.zeros(2, 2))
    initialize(module, 0.02)
    assert all((parameter != 0).all() for parameter in (module.table, module[0][0].weight))
