"""Two, three and four real ranks against one, tables whole and split: the same training, the same metrics."""

from dataclasses import asdict
from typing import Any

import pytest
import torch

from mian.contract import Contract, read_contract
from mian.distributed.collectives import Ranks
from mian.evaluation.platt import calibrate
from mian.models import ClickModel, build
from mian.stream import SampleStream
from tests.factories import whole_split
from tests.support.arithmetic import assert_metrics_of
from tests.support.launches import STEPS, Launches, configuration

pytestmark = pytest.mark.ranks

WORLDS = [
    pytest.param((2, "replicated"), marks=pytest.mark.long),
    (4, "replicated"),
    (2, "sharded"),
    pytest.param((4, "sharded"), marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def alone(launches: Launches) -> dict[str, Any]:
    """What one rank has after the training."""
    (found,) = launches.of(1, "training, replicated")
    return found


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: f"{world[0]} ranks, {world[1]}")
def trained(request: pytest.FixtureRequest, launches: Launches) -> list[dict[str, Any]]:
    """What each of several ranks has after the same training."""
    ranks, tables = request.param
    return launches.of(ranks, f"training, {tables}")


def model_with(weights: dict[str, torch.Tensor], samples: Any, contract: Contract) -> ClickModel:
    model = build("mian", contract, configuration(samples, 1)["model"]["options"])
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def trained_alone(samples: Any, alone: dict[str, Any]) -> ClickModel:
    """The model that one rank has trained."""
    return model_with(alone["weights"], samples, samples.contract)


@pytest.fixture(scope="module")
def test_split(samples: Any) -> dict[str, torch.Tensor]:
    """All rows that are scored; their number is odd, so that the parts of two and four ranks are uneven."""
    batch = whole_split(samples.folder, samples.contract, "test")
    assert len(batch["label"]) % 2
    return batch


def test_many_ranks_have_the_loss_curve_of_one(alone: dict[str, Any], trained: list[dict[str, Any]]) -> None:
    one, many = alone["curve"], trained[0]["curve"]
    assert list(one) == list(many) == list(range(1, STEPS + 1))
    differences = [abs(one[step] - many[step]) for step in one]
    print(f"largest difference of the loss, one rank and {len(trained)}, {STEPS} steps: {max(differences):.1e}")
    assert max(differences) < 1e-4
    assert min(one.values()) < 0.98 * one[1], "the loss is to fall, or the curves say little"


def test_many_ranks_come_to_the_weights_of_one(alone: dict[str, Any], trained: list[dict[str, Any]]) -> None:
    one, many = alone["weights"], trained[0]["weights"]
    for name, weight in one.items():
        # A weight may move by lr = 3e-3 a step. Where a gradient is all rounding, Adam moves by what the rounding says.
        torch.testing.assert_close(many[name], weight, atol=2e-3, rtol=1e-4, msg=lambda message, name=name: f"{name}: {message}")


def test_all_ranks_end_with_the_same_whole_weights_or_with_their_own_rows(request: Any, trained: list[dict[str, Any]]) -> None:
    is_sharded = "sharded" in request.node.callspec.id
    first = trained[0]["weights"]
    for other in trained[1:]:
        for name, weight in other["weights"].items():
            assert torch.equal(weight, first[name]) or (is_sharded and name in other["table_rows"]), name
    for name, weight in first.items():
        if name in trained[0]["table_rows"]:
            assert sum(rank["table_rows"][name] for rank in trained) == len(weight) * (1 if is_sharded else len(trained))


def test_the_first_rank_alone_reports(trained: list[dict[str, Any]]) -> None:
    assert all(rank["curve"] == {} for rank in trained[1:])


@pytest.mark.parametrize(
    ("ranks", "tables"),
    [
        pytest.param(2, "replicated", marks=pytest.mark.long),
        pytest.param(2, "sharded", marks=pytest.mark.long),
        pytest.param(3, "replicated", marks=pytest.mark.long),
        (3, "sharded"),
        (4, "replicated"),
        pytest.param(4, "sharded", marks=pytest.mark.long),
    ],
)
def test_metrics_over_any_number_of_ranks_are_those_of_all_rows(
    launches: Launches, trained_alone: ClickModel, test_split: dict[str, torch.Tensor], ranks: int, tables: str
) -> None:
    for metrics in launches.of(ranks, f"scores, {tables}"):
        assert_metrics_of(metrics, trained_alone, test_split)


def test_metrics_of_one_rank_are_those_of_all_rows(
    alone: dict[str, Any], trained_alone: ClickModel, test_split: dict[str, torch.Tensor]
) -> None:
    assert_metrics_of(alone["metrics"], trained_alone, test_split)


@pytest.mark.parametrize(("ranks", "tables"), [(2, "replicated"), (2, "sharded"), (3, "sharded")])
def test_a_calibration_over_any_number_of_ranks_is_that_of_one(launches: Launches, samples: Any, ranks: int, tables: str) -> None:
    (alone,) = launches.of(1, "calibrated")
    model = model_with(alone["weights"], samples, samples.contract)
    stream = SampleStream(str(samples.folder), samples.contract, "validation", 50, shuffle=False, drop_last=False)
    expected = calibrate(model, stream, Ranks())
    assert expected.left_out is None
    assert abs(expected.scale - 1) > 1e-3, "or it would say little"
    assert alone["weights"]["calibration_scale"] == pytest.approx(expected.scale, abs=1e-6)
    found = launches.of(ranks, f"calibration, {tables}")
    assert all(rank == found[0] for rank in found), "to the last bit"
    assert found[0]["model"] == (found[0]["fit"]["scale"], found[0]["fit"]["offset"])
    for name, value in asdict(expected).items():
        assert found[0]["fit"][name] == (value if value is None else pytest.approx(value, abs=1e-6)), name


@pytest.mark.parametrize("tables", [pytest.param("replicated", marks=pytest.mark.long), "sharded"])
def test_a_training_goes_on_on_another_number_of_ranks(launches: Launches, tables: str) -> None:
    """The global batches are the same for any number, so that the curve is that of a training which was never stopped."""
    parts = [launches.of(ranks, f"goes on, {tables}")[0]["curve"] for ranks in (1, 3, 2)]
    assert [max(part) for part in parts] == [30, 60, STEPS]
    curve = parts[0] | parts[1] | parts[2]
    expected = launches.of(1, "never stopped")[0]["curve"]
    assert list(curve) == list(expected)
    assert max(abs(curve[step] - expected[step]) for step in expected) < 1e-4


def test_fewer_row_groups_and_even_rows_than_ranks_are_no_error(samples: Any, launches: Launches) -> None:
    (alone,) = launches.of(1, "few row groups")
    results = launches.of(3, "few row groups")
    assert len(results) == 3
    contract = read_contract(str(launches.few_row_groups))
    batch = whole_split(launches.few_row_groups, contract, "test")
    for result in [alone, *results]:
        assert result["metrics"]["rows"] == 2
        assert_metrics_of(result["metrics"], model_with(result["weights"], samples, contract), batch)


@pytest.mark.parametrize(
    ("work", "difference"),
    [
        ("another learning rate", "the setting optimizer.learning_rate is 0.0003, on rank 0 0.003;"),
        ("checkpoints on one rank", "the setting checkpoint.enabled is false, on rank 0 true;"),
        ("another contract", 'the contract\'s days[1].fingerprint is "newer", on rank 0 "fingerprint of 2026-03-02";'),
    ],
)
def test_a_rank_that_would_train_another_model_is_named_on_all_ranks(launches: Launches, work: str, difference: str) -> None:
    for error in launches.of(2, work):
        assert error.startswith(f"DisagreementError: rank 1 of 2 would train another model than rank 0: on rank 1 {difference}")


def test_fewer_rows_than_a_batch_of_each_rank_are_said_by_one_rank(launches: Launches) -> None:
    first, second = launches.of(2, "few rows")
    assert first.startswith("StreamError: split 'train' has 20 rows, fewer than one batch of 12 rows on each of 2 ranks")
    assert second == "RankError: rank 0 could not go on"


def test_a_score_that_is_no_number_is_said_by_the_rank_that_has_the_row(launches: Launches) -> None:
    first, second = launches.of(2, "no score")
    assert first == "RankError: rank 1 could not go on"
    assert second.startswith("TrainingError: rank 1: after step 2 split 'validation' cannot be scored")


@pytest.mark.parametrize("tables", ["replicated", "sharded"])
def test_a_loss_that_is_no_number_is_said_by_one_rank(launches: Launches, tables: str) -> None:
    first, second = launches.of(2, f"diverges, {tables}, none")
    assert first.startswith("TrainingError: rank 0: step 2 cannot be done, the loss or a gradient is no number")
    assert second == "RankError: rank 0 could not go on"


def test_a_rank_that_waits_for_another_leaves_its_core_alone(launches: Launches) -> None:
    """Where it looks again and again whether the exchange is over, as Horovod does, it is busy for all these seconds."""
    (waited, busy), _ = launches.of(2, "waits")
    assert waited > 4
    assert busy < 0.25 * waited
