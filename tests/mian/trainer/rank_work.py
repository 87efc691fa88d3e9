"""What the tests run on each rank: ``horovodrun -np N python rank_work.py FOLDER``.

FOLDER holds ``work.json``: ``config``, a training's configuration; perhaps ``weights`` to score the test split with instead of
training; perhaps ``failing``, configurations by name of trainings that end in an error. Each rank leaves ``rank-I-of-N.pt`` there:
its curve, its weights, the metrics that it came to, and the errors.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from mian.config import TrainConfig
from mian.models import ClickModel, build
from mian.stream import StreamError
from mian.trainer import RankError, Ranks, Trainer, TrainingError, open_streams
from mian.trainer.evaluation import Scores, score_together
from pipeline.contract import read_contract
from tests.mian.trainer.curves import Curves


def work(folder: Path) -> None:
    plan = json.loads((folder / "work.json").read_text())
    ranks, curves = Ranks(), Curves()
    if "weights" in plan:
        model, scores = score(plan["config"], plan["weights"], ranks)
    else:
        model, scores = train(plan["config"], ranks, curves)
    result = {
        "curve": curves["train_logloss"],
        "weights": model.state_dict(),
        "metrics": scores.metrics(),
        "errors": {name: error_of(config, ranks) for name, config in plan.get("failing", {}).items()},
    }
    torch.save(result, folder / f"rank-{ranks.rank}-of-{ranks.size}.pt")


def train(values: dict[str, Any], ranks: Ranks, curves: Curves) -> tuple[ClickModel, Scores]:
    config = TrainConfig.model_validate(values)
    contract = read_contract(config.samples)
    streams = ranks.together(lambda: open_streams(config, contract, ranks), (StreamError,))
    trained = Trainer(config, contract, streams, ranks, curves).run()
    assert trained.test is not None
    return trained.model, trained.test


def score(values: dict[str, Any], weights: str, ranks: Ranks) -> tuple[ClickModel, Scores]:
    config = TrainConfig.model_validate(values)
    contract = read_contract(config.samples)
    model = build(config.model.name, contract, config.model.options)
    model.load_state_dict(torch.load(weights, weights_only=True))
    streams = open_streams(config, contract, ranks)
    assert streams.test is not None
    return model, score_together(model, streams.test, ranks)


def error_of(values: dict[str, Any], ranks: Ranks) -> str:
    try:
        train(values, ranks, Curves())
    except (RankError, StreamError, TrainingError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("this training was to fail")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
