"""Two, three and four real ranks against one, tables whole and split: the same training, the same metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from mian.evaluation import score
from mian.models import build
from mian.stream import SampleStream
from tests.launcher import on_ranks
from tests.mian.sample_data import write_samples
from tests.mian.trainer import rank_work
from tests.mian.trainer.conftest import Samples
from tests.mian.trainer.spoiled import spoil

pytestmark = pytest.mark.horovod

STEPS = 100
GLOBAL_BATCH = 24
WORLDS = [
    pytest.param((2, "replicated"), marks=pytest.mark.long),
    (4, "replicated"),
    (2, "split"),
    pytest.param((4, "split"), marks=pytest.mark.long),
]


def configuration(samples: Any, ranks: int, tables: str = "replicated", **values: Any) -> dict[str, Any]:
    """A training whose global batches do not depend on the number of ranks, with all that is done to gradients switched on."""
    settings = {
        "batch_size": GLOBAL_BATCH // ranks,
        "stream": {"order": "global"},
        "optimizer": {"learning_rate": 3e-3, "l2": 1e-3, "l2_embedding": 1e-3, "clip_norm": 0.1},
        "tables": {"placement": tables},
        "max_steps": STEPS,
        "log_every": 1,
        "evaluation_batch_size": 50,
    }
    config: dict[str, Any] = samples.config(**{**settings, **values}).model_dump()
    return config


def work_on(folder: Path, ranks: int, **work: Any) -> list[dict[str, Any]]:
    """What each rank leaves, see ``rank_work``."""
    (folder / "work.json").write_text(json.dumps(work))
    if ranks == 1:
        rank_work.work(folder)
    else:
        launched = on_ranks(ranks, Path(rank_work.__file__), folder, folder=folder)
        assert launched.code == 0, launched.output
    return [torch.load(folder / f"rank-{rank}-of-{ranks}.pt") for rank in range(ranks)]


@pytest.fixture(scope="module")
def alone(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one rank has after the training."""
    return work_on(tmp_path_factory.mktemp("one"), 1, config=configuration(samples, 1))[0]


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: f"{world[0]} ranks, {world[1]}")
def trained(request: pytest.FixtureRequest, samples: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several ranks has after the same training."""
    ranks, tables = request.param
    return work_on(tmp_path_factory.mktemp("many"), ranks, config=configuration(samples, ranks, tables))


@pytest.fixture(scope="module")
def errors(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What each of two ranks says of trainings that must fail."""
    write_samples(few := tmp_path_factory.mktemp("few"), train=[[20]])
    contract = write_samples(spoiled := tmp_path_factory.mktemp("spoiled"))
    last = contract.split("validation")[-1].files[-1]  # the last rank scores the last rows
    spoil(spoiled, contract, last.path, "context_slot", [last.rows - 1], float("nan"))
    config = configuration(samples, 2)
    diverging = config | {"optimizer": {"learning_rate": 1e30}, "log_every": 4}
    failing = {
        "diverges": diverging,
        "diverges split": diverging | {"tables": {"placement": "split"}},
        "few": config | {"samples": str(few)},
        "no score": config | {"samples": str(spoiled), "max_steps": 2},
    }
    return [rank["errors"] for rank in work_on(tmp_path_factory.mktemp("failing"), 2, failing=failing)]


@pytest.fixture(scope="module")
def of_scikit_learn(samples: Any, alone: dict[str, Any]) -> dict[str, float]:
    """Metrics of the trained model for all rows of the test split, scored in this one process."""
    config = configuration(samples, 1)
    model = build("mian", samples.contract, config["model"]["options"])
    model.load_state_dict(alone["weights"])
    scores = score(model, SampleStream(str(samples.folder), samples.contract, "test", 1000, shuffle=False, drop_last=False))
    return {
        "auc": roc_auc_score(scores.labels, scores.probabilities),
        "logloss": log_loss(scores.labels, scores.probabilities.astype(np.float64)),
        "rows": len(scores.labels),
        "positives": scores.labels.sum(),
    }


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
    is_split = "split" in request.node.callspec.id
    first = trained[0]["weights"]
    for other in trained[1:]:
        for name, weight in other["weights"].items():
            assert torch.equal(weight, first[name]) or (is_split and name in other["table_rows"]), name
    for name, weight in first.items():
        if name in trained[0]["table_rows"]:
            assert sum(rank["table_rows"][name] for rank in trained) == len(weight) * (1 if is_split else len(trained))


def test_the_first_rank_alone_reports(trained: list[dict[str, Any]]) -> None:
    assert all(rank["curve"] == {} for rank in trained[1:])


@pytest.mark.parametrize(
    ("ranks", "tables"),
    [
        (1, "replicated"),
        pytest.param(2, "replicated", marks=pytest.mark.long),
        pytest.param(2, "split", marks=pytest.mark.long),
        pytest.param(3, "replicated", marks=pytest.mark.long),
        (3, "split"),
        (4, "replicated"),
        pytest.param(4, "split", marks=pytest.mark.long),
    ],
)
def test_metrics_over_any_number_of_ranks_are_those_of_all_rows(
    samples: Any, alone: dict[str, Any], of_scikit_learn: dict[str, float], tmp_path: Path, ranks: int, tables: str
) -> None:
    assert of_scikit_learn["rows"] % 2, "the ranks' parts are to be uneven"
    torch.save(alone["weights"], tmp_path / "weights.pt")
    for rank in work_on(tmp_path, ranks, config=configuration(samples, 1, tables), weights=str(tmp_path / "weights.pt")):
        for name, value in of_scikit_learn.items():
            np.testing.assert_allclose(rank["metrics"][name], value, atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize("tables", [pytest.param("replicated", marks=pytest.mark.long), "split"])
def test_a_training_goes_on_on_another_number_of_ranks(samples: Any, tmp_path: Path, tables: str) -> None:
    """The global batches are the same for any number, so that the curve is that of a training which was never stopped."""
    stops = [(1, 30), (3, 60), (2, None)]
    curve: dict[int, float] = {}
    for ranks, stop_at in stops:
        config = configuration(
            samples, ranks, tables, checkpoint={"enabled": True}, optimizer={"learning_rate": 3e-3, "tables": "rowwise_adagrad"}
        )
        curve |= work_on(tmp_path, ranks, config=config, checkpoints=str(tmp_path / "checkpoints"), stop_at=stop_at)[0]["curve"]
    undisturbed = configuration(samples, 1, optimizer={"learning_rate": 3e-3, "tables": "rowwise_adagrad"})
    expected = work_on(tmp_path, 1, config=undisturbed)[0]["curve"]
    assert list(curve) == list(expected)
    assert max(abs(curve[step] - expected[step]) for step in expected) < 1e-4


def test_fewer_row_groups_and_even_rows_than_ranks_are_no_error(tmp_path: Path) -> None:
    for ranks in (1, 3):
        contract = write_samples(folder := tmp_path / f"samples of {ranks}", train=[[500]], validation=[[5]], test=[[2]])
        config = configuration(Samples(folder, contract), ranks) | {"max_steps": 6}
        (tmp_path / str(ranks)).mkdir()
        results = work_on(tmp_path / str(ranks), ranks, config=config)
        assert len(results) == ranks
        assert all(result["metrics"]["rows"] == 2 for result in results)
        if ranks == 1:
            (alone,) = results
    for result in results:
        np.testing.assert_allclose(list(result["metrics"].values()), list(alone["metrics"].values()), atol=1e-4)


def test_fewer_rows_than_a_batch_of_each_rank_are_said_by_one_rank(errors: list[dict[str, str]]) -> None:
    first, second = (rank["few"] for rank in errors)
    assert first.startswith("StreamError: split 'train' has 20 rows, fewer than one batch of 12 rows on each of 2 ranks")
    assert second == "RankError: rank 0 could not go on"


def test_a_score_that_is_no_number_is_said_by_the_rank_that_has_the_row(errors: list[dict[str, str]]) -> None:
    first, second = (rank["no score"] for rank in errors)
    assert first == "RankError: rank 1 could not go on"
    assert second.startswith("TrainingError: rank 1: after step 2 split 'validation' cannot be scored")


@pytest.mark.parametrize("training", ["diverges", "diverges split"])
def test_a_loss_that_is_no_number_is_said_by_one_rank(errors: list[dict[str, str]], training: str) -> None:
    first, second = (rank[training] for rank in errors)
    assert first.startswith("TrainingError: rank 0: step 2 cannot be done, the loss or a gradient is no number")
    assert second == "RankError: rank 0 could not go on"
