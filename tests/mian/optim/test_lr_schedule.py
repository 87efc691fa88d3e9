"""The learning rate against closed forms."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from mian.config import OptimizerConfig
from mian.optim.lr_schedule import rate_factor
from tests.support.launches import Launches


def factor(share: float, ranks: int = 1, **settings: Any) -> float:
    return rate_factor(OptimizerConfig.model_validate(settings), share, ranks)


SHARES = [0.0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.995, 1.0]


@pytest.mark.parametrize("share", SHARES)
def test_without_a_warm_up_a_schedule_is_that_of_the_share_done(share: float) -> None:
    assert factor(share) == 1.0
    assert factor(share, schedule="linear") == max(0.01, 1 - share)
    assert factor(share, schedule="cosine") == pytest.approx(max(0.01, math.cos(math.pi * share / 2) ** 2), rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_warm_up_climbs_evenly_from_a_hundredth_to_the_whole_rate(schedule: str) -> None:
    """And at its end the schedule begins, from the whole rate: there is no jump."""
    assert factor(0.0, warmup=0.2, schedule=schedule) == 0.01
    assert factor(0.05, warmup=0.2, schedule=schedule) == pytest.approx(0.01 + 0.99 / 4)
    assert factor(0.1, warmup=0.2, schedule=schedule) == pytest.approx(0.01 + 0.99 / 2)
    assert factor(math.nextafter(0.2, 0), warmup=0.2, schedule=schedule) == pytest.approx(1.0)
    assert factor(0.2, warmup=0.2, schedule=schedule) == 1.0


def test_after_a_warm_up_a_schedule_is_that_of_the_rest() -> None:
    assert factor(0.6, warmup=0.2, schedule="linear") == pytest.approx(0.5)
    assert factor(0.4, warmup=0.2, schedule="cosine") == pytest.approx(math.cos(math.pi / 8) ** 2)
    for schedule in ("linear", "cosine"):
        assert factor(1.0, warmup=0.2, schedule=schedule) == 0.01


@pytest.mark.parametrize("ranks", [1, 2, 3, 16])
def test_a_rate_scaled_linearly_is_that_of_one_rank_times_the_ranks(ranks: int) -> None:
    for schedule in ("constant", "linear", "cosine"):
        for share in SHARES:
            scaled = factor(share, ranks, schedule=schedule, learning_rate_scaling="linear")
            assert scaled == ranks * factor(share, schedule=schedule)
            assert factor(share, ranks, schedule=schedule) == factor(share, schedule=schedule), (
                "without scaling ranks are nothing"
            )


@pytest.mark.parametrize("ranks", [1, 2, 3, 16])
def test_a_scaled_rate_warms_up_from_that_of_one_rank(ranks: int) -> None:
    """Goyal et al. 2017, section 2.2: from eta by a constant amount each step to k * eta."""
    settings: dict[str, Any] = {"learning_rate_scaling": "linear", "warmup": 0.1}
    assert factor(0.0, ranks, **settings) == 1.0
    assert factor(0.025, ranks, **settings) == pytest.approx(1 + (ranks - 1) / 4)
    assert factor(0.1, ranks, **settings) == factor(0.7, ranks, **settings) == ranks


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("scaling", ["none", "linear"])
@pytest.mark.parametrize("warmup", [0.0, 1e-9, 0.3, 0.999])
def test_no_step_has_a_rate_of_nothing(schedule: str, scaling: str, warmup: float) -> None:
    for share in (index / 1000 for index in range(1001)):
        rate = factor(share, 4, schedule=schedule, learning_rate_scaling=scaling, warmup=warmup)
        assert 0.01 <= rate <= (4.0 if scaling == "linear" else 1.0)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 2.0])
def test_a_warm_up_is_a_share_that_leaves_something(warmup: float) -> None:
    with pytest.raises(ValidationError, match="warmup"):
        OptimizerConfig(warmup=warmup)


@pytest.mark.ranks
def test_two_ranks_at_a_scaled_rate_train_as_one_at_twice_the_rate(launches: Launches) -> None:
    """The rate of tables too; global batches do not depend on the number of ranks."""
    (one,), (two, _) = launches.of(1, "at twice the rate"), launches.of(2, "at a scaled rate")
    one, two = one["curve"], two["curve"]
    assert list(one) == list(two) == list(range(1, 41))
    assert max(abs(one[step] - two[step]) for step in one) < 1e-4
    assert min(one.values()) < 0.98 * one[1], "the loss is to fall, or the curves say little"
