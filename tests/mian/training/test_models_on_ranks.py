"""What models have that MIAN has not, on two real ranks: moving averages, two tables."""

from typing import Any

import pytest
import torch

from mian.models import build
from tests.factories import whole_split
from tests.support.arithmetic import assert_metrics_of, exact_logits
from tests.support.launches import MODELS, Launches

pytestmark = pytest.mark.ranks


def assert_one_process_comes_to(metrics: dict[str, float], samples: Any, weights: dict[str, torch.Tensor], name: str) -> None:
    model = build(name, samples.contract, MODELS[name]["options"])
    model.load_state_dict(weights)
    batch = whole_split(samples.folder, samples.contract, "test")
    logits, rounding = exact_logits(model.eval(), batch)
    assert logits.std() > 100 * rounding, "where all scores are equal but for rounding, metrics say nothing of the ranks"
    assert_metrics_of(metrics, model, batch)


def test_moving_averages_are_those_of_all_ranks_so_that_metrics_are_too(samples: Any, launches: Launches) -> None:
    first, second = launches.of(2, "din")
    assert set(first["weights"]) == set(second["weights"])
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    moved = [weight for name, weight in first["weights"].items() if name.endswith(".moving")]
    assert len(moved) == 3
    for mean, variance in moved:
        assert (mean != 0).all()
        assert (variance < 0.5).all(), "the averages start at 1, far over what the first layers give"
    assert first["metrics"] == second["metrics"]
    assert_one_process_comes_to(first["metrics"], samples, first["weights"], "din")


def test_two_split_tables_are_looked_up_in_one_order(samples: Any, launches: Launches) -> None:
    """Also where one rank has batches to score and the other has none left."""
    first, second = launches.of(2, "deepfm")
    assert len(first["table_rows"]) == 2
    assert first["metrics"] == second["metrics"]
    assert_one_process_comes_to(first["metrics"], samples, first["weights"], "deepfm")
