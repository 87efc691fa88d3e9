"""With which learning rate, and which vectors of new values, does a warm start gain most?

    OMP_NUM_THREADS=1 python benchmarks/warm_start_recipe.py

In a simulated world, whose items come and go, MIAN is trained on the first days (``conf/train/mian.yaml``). Then the vocabularies are
extended by ten days, and trainings begin with its weights and see those days once, for each of ``init_new_rows`` and several values of
``warm_rate``. The world and the samples are made by the jobs, the trainings are one after the other in this process.

Prints a line of JSON for each training: ``new_rows`` and ``warm_rate``, or in the place of both ``left alone`` (the first model) and ``from
scratch`` (a training with new weights on all days, as many epochs as the first one); ``seed``; and logloss and AUC on the validation and
the test days, of all rows, and with ``_new`` of rows whose candidate has an id that the first model did not know. The first line says
how many rows and new values there are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from warm_start import DATA, TRAINING, job, split, written

from mian.config import TrainConfig
from mian.contract import Contract, read_contract
from mian.contract.document import LABEL_COLUMN, USER_COLUMN
from mian.distributed.collectives import Ranks
from mian.evaluation.scoring import scores
from mian.metrics import auc, logloss
from mian.models import ClickModel
from mian.training import Trainer, open_streams
from mian.training.data import held_out_stream

FIRST = {"train": ("2026-01-01", "2026-01-20"), "validation": ("2026-01-21", "2026-01-21")}
ALL = {
    "train": ("2026-01-01", "2026-01-31"),
    "validation": ("2026-02-01", "2026-02-06"),
    "test": ("2026-02-07", "2026-02-14"),
}
NEW = ALL | {"train": ("2026-01-22", "2026-01-31")}
WAYS = ("unknown", "draw", "category_mean")
CANDIDATE = "candidate_item_id"


def main() -> None:
    """Make the samples, train, and print JSON lines."""
    parser = argparse.ArgumentParser(
        description="With which learning rate, and which vectors of new values, does a warm start gain most?"
    )
    parser.add_argument("--impressions", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=4_000, help="of the world; the more, the more are new")
    parser.add_argument("--divisors", type=int, nargs="+", default=[1, 3, 6, 12], help="of the learning rate")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--data", type=Path, help="where samples are kept from one run to the next; else they are made and removed"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for line in measured(arguments.data or Path(name), Path(name), arguments):
            print(json.dumps(line), flush=True)


def measured(folder: Path, scratch: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines."""
    if not (folder / "all" / "contract.json").exists():
        make_samples(folder, arguments)
    first, everything = read_contract(str(folder / "first")), read_contract(str(folder / "all"))
    item_vocabulary = next(field.vocabulary for field in everything.fields if field.column == CANDIDATE) or ""
    known = first.vocabulary(item_vocabulary).size
    new_days = with_splits(everything, NEW)
    values: dict[str, Any] = {"output": str(scratch / "models"), "checkpoint": {"enabled": False}, "test_split": None}
    values = yaml.safe_load(TRAINING.read_text(encoding="utf-8")) | values
    begun = values | {"samples": str(folder / "all"), "epochs": 1}
    rows = {name: sum(file.rows for day in new_days.split(name) for file in day.files) for name in NEW}
    yield {
        "benchmark": "warm_start_recipe",
        "impressions": arguments.impressions,
        "items": arguments.items,
        "new_values": {v.name: v.size - first.vocabulary(v.name).size for v in everything.vocabularies},
        "rows": rows | {"first": sum(file.rows for day in first.split("train") for file in day.files)},
    }
    for seed in range(arguments.seeds):
        old = trained(values | {"samples": str(folder / "first"), "seed": seed}, first)
        warm = begun | {"seed": seed, "init_from": "the first model"}
        alone = trained(warm, new_days, old, learn=False)
        yield {"new_rows": "left alone", "seed": seed, **quality(alone, warm, new_days, known)}
        again = trained(values | {"samples": str(folder / "all"), "seed": seed}, everything)
        yield {"new_rows": "from scratch", "seed": seed, **quality(again, warm, new_days, known)}
        for way in WAYS:
            for divisor in arguments.divisors:
                model = trained(warm | {"init_new_rows": way, "warm_rate": 1 / divisor}, new_days, old)
                found = quality(model, warm, new_days, known)
                yield {"new_rows": way, "warm_rate": round(1 / divisor, 4), "seed": seed, **found}


def make_samples(folder: Path, arguments: argparse.Namespace) -> None:
    """Those of the first days, and the same with extended vocabularies and all days."""
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    data |= {"logs": str(folder / "logs"), "samples": str(folder / "first")}
    data["simulate"] |= {"impressions": arguments.impressions, "items": arguments.items}
    config = written(folder / "first.yaml", data | {"splits": split(FIRST)})
    job("simulate_logs", "--config", config, spark=True)
    job("build_samples", "--config", config, spark=True)
    shutil.copytree(folder / "first", folder / "all")
    config = written(folder / "all.yaml", data | {"samples": str(folder / "all"), "splits": split(ALL)})
    job("build_samples", "--config", config, "--extend-vocabularies", spark=True)


def with_splits(contract: Contract, days: dict[str, tuple[str, str]]) -> Contract:
    """The contract with other splits of its days."""
    return Contract.model_validate(contract.model_dump() | {"splits": split(days)})


def trained(values: dict[str, Any], contract: Contract, old: ClickModel | None = None, learn: bool = True) -> ClickModel:
    """The model of a training that has ended, or of one that is not to learn as it begins."""
    config = TrainConfig.model_validate(values)
    trainer = Trainer(config, contract, open_streams(config, contract, Ranks()), Ranks(), lambda metrics, step: None)
    if old is not None:
        trainer.begin_with(old)
    with contextlib.redirect_stdout(sys.stderr):  # for what it shows of its progress
        return trainer.run().model if learn else trainer.whole_model()


def quality(model: ClickModel, values: dict[str, Any], contract: Contract, known: int) -> dict[str, float]:
    """Metrics of a model on the held-out days; the first new id of items is ``known``."""
    config = TrainConfig.model_validate(values)
    found: dict[str, float] = {}
    for name in ("validation", "test"):
        scored = list(scores(model, held_out_stream(config, contract, Ranks(), name)))
        labels = np.concatenate([each.labels for each in scored])
        probabilities = np.concatenate([each.probabilities for each in scored])
        columns = (CANDIDATE, LABEL_COLUMN, USER_COLUMN)
        ids = np.concatenate(
            [batch[CANDIDATE].numpy() for batch in held_out_stream(config, contract, Ranks(), name, columns).epoch(0)]
        )
        for suffix, chosen in (("", np.full(len(ids), True)), ("_new", ids >= known)):
            found[f"{name}_rows{suffix}"] = int(chosen.sum())
            found[f"{name}_logloss{suffix}"] = round(logloss(labels[chosen], probabilities[chosen]), 5)
            found[f"{name}_auc{suffix}"] = round(auc(labels[chosen], probabilities[chosen]), 5)
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
