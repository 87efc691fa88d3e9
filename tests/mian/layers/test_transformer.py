import pytest
import torch
from torch import nn

from mian.kernels import JaggedLayout
from mian.layers import Transformer, initialize


def block(width=8, heads=4, head_dim=2, dropout=0.0, norms="pre_ln"):
    torch.manual_seed(0)
    layer = Transformer(width, heads, head_dim, 4 * width, dropout, norms)
    initialize(layer, 0.5)
    return layer


def over(layer, x, lengths):
    """The block over padded histories ``(B, T, d)``."""
    layout = JaggedLayout(torch.tensor(lengths), x.shape[1])
    return layout.pad(layer(layout.pack(x), layout))


@pytest.mark.parametrize("norms", ["pre_ln", "post_ln"])
def test_it_is_torchs_own_block_given_the_same_weights(norms):
    layer = block(norms=norms)
    oracle = nn.TransformerEncoderLayer(8, 4, 32, dropout=0.0, norm_first=norms == "pre_ln", batch_first=True)
    nn.init.zeros_(oracle.self_attn.in_proj_bias)
    nn.init.zeros_(oracle.self_attn.out_proj.bias)
    with torch.no_grad():
        for mine, theirs in [
            (layer.query_key_value.weight, oracle.self_attn.in_proj_weight),
            (layer.attention_output.weight, oracle.self_attn.out_proj.weight),
            (layer.inner.weight, oracle.linear1.weight),
            (layer.inner.bias, oracle.linear1.bias),
            (layer.outer.weight, oracle.linear2.weight),
            (layer.outer.bias, oracle.linear2.bias),
        ]:
            theirs.copy_(mine)
    x, mask = torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([[5], [2], [1]])
    expected = oracle.train()(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(over(layer, x, [5, 2, 1])[mask], expected[mask])


def test_no_position_depends_on_one_that_is_not_real_or_of_another_sample():
    layer, x = block(), torch.randn(2, 4, 8)
    other = torch.cat([x[:1, :2], torch.randn(1, 2, 8)], dim=1)
    alone = over(layer, other, [2])
    torch.testing.assert_close(alone, over(layer, x, [2, 4])[:1])
    torch.testing.assert_close(alone[:, :2], over(layer, x[:1, :2], [2]))


@pytest.mark.parametrize(("width", "heads", "head_dim"), [(5, 3, 2), (8, 8, 1), (3, 1, 7)])
def test_heads_need_not_divide_the_width(width, heads, head_dim):
    output = over(block(width, heads, head_dim), torch.randn(2, 4, width), [4, 4])
    assert output.shape == (2, 4, width)


def test_histories_that_are_all_empty_leave_gradients_of_0_and_not_none():
    layer = block()
    over(layer, torch.randn(3, 10, 8), [0, 0, 0]).sum().backward()
    assert all((parameter.grad == 0).all() for parameter in layer.parameters())


def test_dropout_is_active_in_training_alone():
    layer, x = block(dropout=0.5), torch.randn(2, 4, 8)
    assert not torch.equal(over(layer.train(), x, [4, 4]), over(layer, x, [4, 4]))
    assert torch.equal(over(layer.eval(), x, [4, 4]), over(layer, x, [4, 4]))
