import torch

from mian.layers import Score


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
