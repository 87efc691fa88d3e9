"""What the tests run on each rank: ``horovodrun -np N python rank_work.py FOLDER``.

FOLDER holds ``works.json``, works by name, which are done one after the other. Each is one of these:

- ``config``, a training's configuration; with ``checkpoints``, where its checkpoints go, and ``stop_at``, the step after which it is to
  stop; with ``fails``, where it must end in an error; with ``last_rank``, settings that the last rank has in the place of these, and with
  ``published``, where it reads a contract that was published after the other ranks read theirs.
- ``config`` and ``weights``, a file of what a rank left and the name of a work in it: to score the test split with its weights; with
  ``calibrates``, to calibrate them on the validation split.
- ``config`` and ``begins``: a training that begins with a model of shorter vocabularies, see ``warm_start_work``.
- ``waits``, to come late to exchanges, on the last rank, and see what the others' waiting costs.
- ``exchange``, see ``exchange_work``; ``scored_rows``, see ``scored_work``.

Each rank leaves ``rank-I-of-N.pt`` there, by name: of a training its curve, its weights, how many rows of which tables it has, and the
metrics that it came to; or its error.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mian.checkpoint.store import CheckpointStore
from mian.config import TrainConfig
from mian.contract import read_contract
from mian.distributed.collectives import RankError, Ranks
from mian.evaluation.platt import calibrate
from mian.evaluation.scoring import evaluate_split
from mian.layers import sharded_tables
from mian.models import ClickModel, build
from mian.stream import StreamError
from mian.training import DisagreementError, Streams, Trainer, TrainingError, TrainingStopped, open_streams
from tests.support import exchange_work, scored_work, warm_start_work
from tests.support.curves import Curves


def work(folder: Path) -> None:
    ranks = Ranks()
    works = json.loads((folder / "works.json").read_text())
    results = {name: result_of(work, ranks, folder) for name, work in works.items()}
    torch.save(results, folder / f"rank-{ranks.rank}-of-{ranks.size}.pt")


def result_of(work: dict[str, Any], ranks: Ranks, folder: Path) -> Any:
    if "waits" in work:
        return waited(ranks)
    if "exchange" in work:
        return exchange_work.exchanged(ranks)
    if "scored_rows" in work:
        return scored_work.scored(folder / "spilled")
    if "fails" in work:
        is_last = ranks.rank == ranks.size - 1
        values = {**work["config"], **(work.get("last_rank", {}) if is_last else {})}
        return error_of(values, ranks, is_last and "published" in work)
    if "begins" in work:
        return warm_start_work.begun(work["config"], ranks)
    if "weights" in work:
        return (calibration if "calibrates" in work else score)(work["config"], work["weights"], ranks)
    return train(work["config"], ranks, work.get("checkpoints"), work.get("stop_at"))


def train(
    values: dict[str, Any],
    ranks: Ranks,
    checkpoints: str | None = None,
    stop_at: int | None = None,
    published: bool = False,
) -> dict[str, Any]:
    config, curves = TrainConfig.model_validate(values), Curves()
    contract = read_contract(config.samples)
    if published:
        newer = contract.days[1].model_copy(update={"fingerprint": "newer"})
        contract = contract.model_copy(update={"days": (contract.days[0], newer, *contract.days[2:])})
    streams = ranks.run_on_all_ranks(lambda: open_streams(config, contract, ranks), (StreamError,))
    store = CheckpointStore(Path(checkpoints), 2) if checkpoints is not None and ranks.is_first else None
    trainer = Trainer(config, contract, streams, ranks, curves, store, lambda: trainer.progress.step + 1 == stop_at)
    trainer.resume(store.newest() if store is not None else None)
    try:
        trained = trainer.run()
    except TrainingStopped:
        return {"curve": curves["train_logloss"]}
    table_rows = {name: len(table.weight) for name, table in trained.model.tables().items()}
    assert trained.test is not None
    return {
        "curve": curves["train_logloss"],
        "weights": trainer.whole_model().state_dict(),
        "table_rows": table_rows,
        "metrics": trained.test.metrics,
    }


def waited(ranks: Ranks) -> tuple[float, float]:
    """Seconds that this rank was in exchanges to which the last one came late, and those for which it kept a core busy meanwhile."""
    before, busy = ranks.exchange_seconds, time.process_time()
    for exchange in (
        ranks.barrier,
        lambda: ranks.broadcast_object(0),
        lambda: ranks.allreduce_mean_(torch.zeros(1)),
        lambda: ranks.allreduce_gradients(torch.zeros(1), {}),
        lambda: ranks.broadcast({"value": torch.zeros(1)}),
    ):
        if ranks.rank == ranks.size - 1:
            time.sleep(1)
        exchange()
    return ranks.exchange_seconds - before, time.process_time() - busy


def score(values: dict[str, Any], weights: tuple[str, str], ranks: Ranks) -> dict[str, float]:
    config, model, streams = trained_before(values, weights, ranks)
    assert streams.test is not None
    return evaluate_split(model, streams.test, ranks, Path(config.output)).metrics


def calibration(values: dict[str, Any], weights: tuple[str, str], ranks: Ranks) -> dict[str, Any]:
    _, model, streams = trained_before(values, weights, ranks)
    found = calibrate(model, streams.validation, ranks)
    return {"fit": asdict(found), "model": model.calibration}


def trained_before(values: dict[str, Any], weights: tuple[str, str], ranks: Ranks) -> tuple[TrainConfig, ClickModel, Streams]:
    config = TrainConfig.model_validate(values)
    contract = read_contract(config.samples)
    with sharded_tables(ranks if config.tables.placement == "sharded" and ranks.size > 1 else None):
        model = build(config.model.name, contract, config.model.options)
    own = {name: table.placement for name, table in model.tables().items()}
    file, name = weights
    whole = torch.load(file, weights_only=True)[name]["weights"]
    model.load_state_dict({name: of[own[name].rank :: own[name].size] if name in own else of for name, of in whole.items()})
    return config, model, open_streams(config, contract, ranks)


def error_of(values: dict[str, Any], ranks: Ranks, published: bool) -> str:
    try:
        train(values, ranks, published=published)
    except (DisagreementError, RankError, StreamError, TrainingError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("this training was to fail")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
