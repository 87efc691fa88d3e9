from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from torch import nn

from mian.layers import EmbeddingTable, initialize, sharded_tables


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


def drawn(rank=0, size=1, rows=700_001):
    with sharded_tables(World(rank, size) if size > 1 else None):
        table = EmbeddingTable(rows, 2, padding=[0, 5])
    torch.manual_seed(1)
    initialize(table, 0.02)
    return table.weight.detach()


@dataclass
class World:
    rank: int
    size: int


def test_vectors_of_tables_are_independent_draws_from_the_truncated_normal():
    values = drawn()[6:].double() / 0.02
    expected = stats.truncnorm(-2, 2)
    assert stats.kstest(values.flatten()[::7].numpy(), expected.cdf).pvalue > 1e-3
    assert values.abs().max() < 2
    for one, other in ((values[:-1], values[1:]), (values[:, 0], values[:, 1]), (values[:-1024], values[1024:])):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.005
    assert values[1:].unique(dim=0).shape == values[1:].shape


@pytest.mark.parametrize("size", [2, 3])
def test_a_split_table_starts_as_the_whole_one(size):
    whole = drawn()
    for rank in range(size):
        assert torch.equal(drawn(rank, size), whole[rank::size])


def test_each_table_is_drawn_anew():
    torch.manual_seed(1)
    tables = nn.Sequential(EmbeddingTable(9, 2, padding=[]), EmbeddingTable(9, 2, padding=[]))
    initialize(tables, 1.0)
    assert (tables[0].weight != tables[1].weight).all()
