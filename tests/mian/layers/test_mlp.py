import torch

from mian.layers import MLP


def test_hidden_layers_are_linear_then_relu_then_dropout():
    mlp, x = MLP(5, (4, 3), dropout=0.5).eval(), torch.randn(7, 5)
    first, second = mlp[0], mlp[3]
    torch.testing.assert_close(mlp(x), second(first(x).relu()).relu())
    assert mlp.output_width == 3
    assert not torch.equal(mlp.train()(x), mlp(x))


def test_without_hidden_layers_the_input_is_left_as_it_is():
    mlp, x = MLP(5, (), dropout=0.5), torch.randn(7, 5)
    assert torch.equal(mlp(x), x)
    assert mlp.output_width == 5
