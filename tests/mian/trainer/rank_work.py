"""What the tests run on each rank: ``horovodrun -np N python rank_work.py FOLDER``.

FOLDER holds ``work.json``: a training's configuration, and perhaps weights to score the test split with instead of training.
Each rank leaves ``rank-I-of-N.pt`` there: its curve, its weights and the metrics that it came to.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from mian.config import TrainConfig
from mian.models import build
from mian.trainer import Ranks, Trainer, open_streams
from mian.trainer.evaluation import score_together
from pipeline.contract import read_contract


def work(folder: Path) -> None:
    work = json.loads((folder / "work.json").read_text())
    config = TrainConfig.model_validate(work["config"])
    contract = read_contract(config.samples)
    ranks = Ranks()
    streams = open_streams(config, contract, ranks)
    curve: dict[int, float] = {}

    def report(metrics: Mapping[str, float], step: int) -> None:
        if "train_logloss" in metrics:
            curve[step] = metrics["train_logloss"]

    if work.get("weights") is None:
        trained = Trainer(config, contract, streams, ranks, report).run()
        model, scores = trained.model, trained.test
    else:
        model = build(config.model.name, contract, config.model.options)
        model.load_state_dict(torch.load(work["weights"], weights_only=True))
        assert streams.test is not None
        scores = score_together(model, streams.test, ranks)
    assert scores is not None
    result = {"curve": curve, "weights": model.state_dict(), "metrics": scores.metrics(), "rows": streams.test.rows}
    torch.save(result, folder / f"rank-{ranks.rank}-of-{ranks.size}.pt")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
