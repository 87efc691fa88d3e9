from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mian.contract import Contract
from mian.models import Mian, restore


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


def test_a_calibration_scales_corrected_logits_where_the_model_does_not_learn(
    contract: Contract, make_batch: Callable[..., dict[str, torch.Tensor]], make_model: Callable[..., Mian]
) -> None:
    model, batch = make_model(contract, dropout=0.0), make_batch(contract)
    learned = model.train()(batch)
    model.set_negative_sampling_rate(0.2)
    uncalibrated = model.eval()(batch)
    with model.calibrated_by(1.5, -0.25):
        torch.testing.assert_close(model(batch), 1.5 * uncalibrated - 0.25)
        assert torch.equal(model.train()(batch), learned)
    assert torch.equal(model.eval()(batch), uncalibrated)


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (math.nan, 0.0), (1.0, math.nan)])
def test_a_calibration_that_turns_the_order_of_scores_or_is_no_number_is_refused(
    contract: Contract, make_model: Callable[..., Mian], scale: float, offset: float
) -> None:
    model = make_model(contract)
    with pytest.raises(ValueError, match="a scale greater than 0 and finite numbers"):
        model.set_calibration(scale, offset)
    assert model.calibration == (1, 0)


def test_weights_of_before_calibrations_are_those_of_a_model_without_one(
    contract: Contract, make_batch: Callable[..., dict[str, torch.Tensor]], make_model: Callable[..., Mian]
) -> None:
    model, batch = make_model(contract), make_batch(contract)
    before = {name: weight for name, weight in model.state_dict().items() if not name.startswith("calibration_")}
    assert len(before) == len(model.state_dict()) - 2
    restored = restore("mian", contract, model.config.model_dump(), before).eval()
    assert restored.calibration == (1, 0)
    assert torch.equal(restored(batch), model(batch))
    model.set_calibration(2.0, 1.0)
    model.load_state_dict(before)
    assert model.calibration == (1, 0)
