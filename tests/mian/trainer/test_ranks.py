"""Two and three real ranks against one: the same training, the same metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from mian.models import build
from mian.stream import SampleStream
from mian.trainer.evaluation import score
from tests.launcher import on_ranks
from tests.mian.sample_data import write_samples
from tests.mian.trainer import rank_work

pytestmark = pytest.mark.horovod

STEPS = 60
GLOBAL_BATCH = 24


def configuration(samples: Any, ranks: int) -> dict[str, Any]:
    """A training whose global batches do not depend on the number of ranks, with all that is done to gradients switched on."""
    config = samples.config(
        batch_size=GLOBAL_BATCH // ranks,
        stream={"order": "global"},
        optimizer={"learning_rate": 3e-3, "l2": 1e-3, "l2_embedding": 1e-3, "clip_norm": 0.1},
        max_steps=STEPS,
        log_every=1,
        evaluation_batch_size=50,
    )
    values: dict[str, Any] = config.model_dump()
    return values


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
def trained(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each of one and of two ranks has after the same training; two ranks then try what must fail."""
    write_samples(few := tmp_path_factory.mktemp("few"), train=[[500]])
    on_two = configuration(samples, 2)
    failing = {"diverges": on_two | {"optimizer": {"learning_rate": 1e30}, "log_every": 4}, "few": on_two | {"samples": str(few)}}
    return {
        1: work_on(tmp_path_factory.mktemp("one"), 1, config=configuration(samples, 1)),
        2: work_on(tmp_path_factory.mktemp("two"), 2, config=on_two, failing=failing),
    }


@pytest.fixture(scope="module")
def of_scikit_learn(samples: Any, trained: Any) -> dict[str, float]:
    """Metrics of the trained model for all rows of the test split, scored in this one process."""
    config = configuration(samples, 1)
    model = build("mian", samples.contract, config["model"]["options"])
    model.load_state_dict(trained[2][0]["weights"])
    scores = score(model, SampleStream(str(samples.folder), samples.contract, "test", 1000, shuffle=False, drop_last=False))
    return {
        "auc": roc_auc_score(scores.labels, scores.probabilities),
        "logloss": log_loss(scores.labels, scores.probabilities),
        "rows": len(scores.labels),
        "positives": scores.labels.sum(),
    }


def test_two_ranks_have_the_loss_curve_of_one(trained: Any) -> None:
    one, two = trained[1][0]["curve"], trained[2][0]["curve"]
    assert list(one) == list(two) == list(range(1, STEPS + 1))
    differences = [abs(one[step] - two[step]) for step in one]
    print(f"largest difference of the loss, one rank and two, {STEPS} steps: {max(differences):.1e}")
    assert max(differences) < 1e-4
    assert min(one.values()) < 0.98 * one[1], "the loss is to fall, or the curves say little"


def test_two_ranks_come_to_the_weights_of_one(trained: Any) -> None:
    one, two = trained[1][0]["weights"], trained[2][0]["weights"]
    for name, weight in one.items():
        # A weight may move by lr = 3e-3 a step. Where a gradient is all rounding, Adam moves by what the rounding says.
        torch.testing.assert_close(two[name], weight, atol=2e-3, rtol=1e-4, msg=lambda message, name=name: f"{name}: {message}")


def test_all_ranks_end_with_the_same_weights(trained: Any) -> None:
    first, second = (rank["weights"] for rank in trained[2])
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_the_first_rank_alone_reports(trained: Any) -> None:
    assert trained[2][1]["curve"] == {}


def test_metrics_over_two_ranks_are_those_of_all_rows(trained: Any, of_scikit_learn: dict[str, float]) -> None:
    for rank in trained[2]:
        assert_metrics(rank["metrics"], of_scikit_learn)


@pytest.mark.parametrize("ranks", [1, 3])
def test_metrics_over_any_number_of_ranks_are_those_of_all_rows(
    samples: Any, trained: Any, of_scikit_learn: dict[str, float], tmp_path: Path, ranks: int
) -> None:
    assert of_scikit_learn["rows"] % 2, "the ranks' parts are to be uneven"
    torch.save(trained[2][0]["weights"], tmp_path / "weights.pt")
    work = {"config": configuration(samples, 1), "weights": str(tmp_path / "weights.pt")}
    for rank in work_on(tmp_path, ranks, **work):
        assert_metrics(rank["metrics"], of_scikit_learn)


def test_fewer_row_groups_than_ranks_are_said_by_one_rank(trained: Any) -> None:
    first, second = (rank["errors"]["few"] for rank in trained[2])
    assert first.startswith("StreamError: split 'train' has fewer row groups than ranks: 1 for 2; train on fewer ranks")
    assert second == "RankError: rank 0 could not go on"


def test_a_loss_that_is_no_number_is_said_by_one_rank(trained: Any) -> None:
    first, second = (rank["errors"]["diverges"] for rank in trained[2])
    assert first.startswith("TrainingError: rank 0: step 2 cannot be done, the loss or a gradient is no number")
    assert second == "RankError: rank 0 could not go on"


def assert_metrics(metrics: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, atol=1e-6, rtol=0, err_msg=name)
