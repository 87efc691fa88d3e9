import pytest
import torch

from mian.layers import Score, masked_softmax


def test_tanh_is_the_default_of_the_paper_and_none_leaves_scores_alone():
    raw = torch.tensor([-9.0, 0.5, 9.0])
    assert torch.equal(Score("tanh")(raw), torch.tanh(raw))
    assert torch.equal(Score("none")(raw), raw)
    assert not list(Score("tanh").parameters()) + list(Score("none").parameters())


def test_a_learned_temperature_starts_at_one_and_sharpens_as_it_falls():
    raw, score = torch.tensor([-9.0, 0.5, 9.0]), Score("learned_temperature")
    assert torch.equal(score(raw), torch.tanh(raw))
    torch.nn.init.constant_(score.log_temperature, -1.0)
    torch.testing.assert_close(score(raw), torch.tanh(raw) * torch.e)


def test_masked_entries_have_weight_0_and_the_others_share_1():
    weights = masked_softmax(torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([[True, False, True]]))
    assert weights[0, 1] == 0
    torch.testing.assert_close(weights[0, [0, 2]], torch.softmax(torch.tensor([1.0, 2.0]), 0))


def test_without_a_mask_it_is_a_softmax():
    scores = torch.randn(3, 4)
    assert torch.equal(masked_softmax(scores, None), torch.softmax(scores, -1))


@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_row_without_entries_is_0_and_its_gradient_is_no_nan(scale):
    scores = (torch.randn(2, 3) * scale).requires_grad_()
    weights = masked_softmax(scores, torch.tensor([[False] * 3, [True] * 3]))
    assert (weights[0] == 0).all()
    (weights * torch.arange(3)).sum().backward()
    assert scores.grad.isfinite().all()
    assert (scores.grad[0] == 0).all()
