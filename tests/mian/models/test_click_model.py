from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mian.contract import Contract
from mian.models import Mian


def test_thinned_negatives_are_undone_where_the_model_does_not_learn(
    contract: Contract, make_batch: Callable[..., dict[str, torch.Tensor]], make_model: Callable[..., Mian]
) -> None:
    model, batch = make_model(contract, dropout=0.0).double(), make_batch(contract)
    learned = torch.sigmoid(model(batch))
    model.set_negative_sampling_rate(0.2)
    served = torch.sigmoid(model(batch))
    # of 100 impressions with n clicks a fifth of the others was kept: the odds had been five times too high
    torch.testing.assert_close(served, learned / (learned + (1 - learned) / 0.2))
    torch.testing.assert_close(torch.sigmoid(model.train()(batch)), learned)


def test_the_share_is_kept_with_the_weights(contract: Contract, make_model: Callable[..., Mian]) -> None:
    model = make_model(contract)
    model.set_negative_sampling_rate(0.25)
    other = make_model(contract)
    other.load_state_dict(model.state_dict())
    assert other.sampling_logit_correction.item() == pytest.approx(math.log(0.25))
