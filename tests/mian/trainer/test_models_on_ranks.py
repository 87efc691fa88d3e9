"""What models have that MIAN has not, on two real ranks: moving averages, two tables."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mian.evaluation import score
from mian.metrics import evaluate
from mian.models import build
from mian.stream import SampleStream
from tests.launcher import on_ranks
from tests.mian.trainer import rank_work

pytestmark = pytest.mark.horovod

MODELS: dict[str, dict[str, Any]] = {
    "din": {"name": "din", "options": {"embedding_dim": 8, "mlp": [16, 8], "unit": [8]}},
    "deepfm": {"name": "deepfm", "options": {"embedding_dim": 8, "mlp": [16, 8]}},
}


def work(samples: Any, folder: Path, name: str, tables: str) -> list[dict[str, Any]]:
    values = {"model": MODELS[name], "tables": {"placement": tables}, "max_steps": 30, "evaluation_batch_size": 50}
    (folder / "work.json").write_text(json.dumps({"config": samples.config(**values).model_dump()}))
    launched = on_ranks(2, Path(rank_work.__file__), folder, folder=folder)
    assert launched.code == 0, launched.output
    return [torch.load(folder / f"rank-{rank}-of-2.pt") for rank in range(2)]


def assert_one_process_comes_to(metrics: dict[str, float], samples: Any, weights: dict[str, torch.Tensor], name: str) -> None:
    model = build(name, samples.contract, MODELS[name]["options"])
    model.load_state_dict(weights)
    stream = SampleStream(str(samples.folder), samples.contract, "test", 1000, shuffle=False, drop_last=False)
    assert evaluate(*score(model, stream)) == pytest.approx(metrics, abs=1e-6)


def test_moving_averages_are_those_of_all_ranks_so_that_metrics_are_too(samples: Any, tmp_path: Path) -> None:
    first, second = work(samples, tmp_path, "din", "replicated")
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


def test_two_split_tables_are_looked_up_in_one_order(samples: Any, tmp_path: Path) -> None:
    """Also where one rank has batches to score and the other has none left."""
    first, second = work(samples, tmp_path, "deepfm", "split")
    assert len(first["table_rows"]) == 2
    assert first["metrics"] == second["metrics"]
    assert_one_process_comes_to(first["metrics"], samples, first["weights"], "deepfm")
