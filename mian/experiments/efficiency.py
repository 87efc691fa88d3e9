"""How long an epoch takes, and how many parameters a model has: Zhang et al. 2021, section 4.5."""

from __future__ import annotations

import itertools
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from mian.atomic_write import write_atomically
from mian.distributed.collectives import Ranks
from mian.execution.device import choose_device
from mian.execution.prefetch import on_device
from mian.execution.threads import default_threads, threads
from mian.experiments.trials import Experiment, Trial
from mian.models import build
from mian.optim.optimizer import Optimizer
from mian.training.data import training_stream
from mian.training.step import TrainingStep

log = logging.getLogger(__name__)

FILE = "efficiency.json"
BATCHES = 32
"""Of the training split, in memory, the same for all."""
ROUNDS = 5


def efficiency(experiment: Experiment, variants: Sequence[str], against: str) -> pd.DataFrame:
    """Seconds an epoch of one process and parameters of each variant; measured once, then read from a file.

    Steps of training on batches in memory, without reading, scoring or other ranks; all models in turn, the median of some rounds. No
    other training should run meanwhile.

    Args:
        experiment: whose best points are known.
        variants: Names of models of the experiment, in the order of the table.
        against: the variant whose time is 1.

    Returns:
        Columns: ``seconds`` an epoch, ``relative``, ``dense`` and ``tables``: parameters without and of embeddings.
    """
    path = experiment.folder / FILE
    trials = {variant: experiment.chosen(variant)[0] for variant in variants}
    keys = {variant: trial.folder.name for variant, trial in trials.items()}
    if path.exists() and (kept := json.loads(path.read_bytes()))["trainings"] == keys:
        return pd.DataFrame.from_dict(kept["table"], orient="index")
    log.info("measuring how long an epoch takes")
    seconds = _seconds_an_epoch(experiment, trials)
    table = pd.DataFrame({"seconds": seconds})
    table["relative"] = table["seconds"] / seconds[against]
    results = {variant: trial.result() for variant, trial in trials.items()}
    table["dense"] = [result.dense_parameters if result else 0 for result in results.values()]
    table["tables"] = [result.table_parameters if result else 0 for result in results.values()]
    write_atomically(path, json.dumps({"trainings": keys, "table": table.to_dict(orient="index")}, indent=1).encode())
    return table


def _seconds_an_epoch(experiment: Experiment, trials: dict[str, Trial]) -> dict[str, float]:
    ranks = Ranks(alone=True)
    steps: dict[str, Callable[[], None]] = {}
    epochs: dict[str, int] = {}
    for variant, trial in trials.items():
        stream = training_stream(trial.config, experiment.contract, ranks)
        epochs[variant] = stream.steps
        batches = list(itertools.islice(stream.epoch(0), BATCHES))
        steps[variant] = _step(trial, experiment, ranks, batches)
    found: dict[str, list[float]] = {variant: [] for variant in trials}
    for number in range(ROUNDS + 1):  # the first warms up
        for variant, step in steps.items():
            steps_done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < experiment.config.timed_seconds:
                step()
                steps_done += 1
            if number:
                found[variant].append(elapsed / steps_done)
    return {variant: statistics.median(times) * epochs[variant] for variant, times in found.items()}


def _step(trial: Trial, experiment: Experiment, ranks: Ranks, batches: Sequence[dict[str, torch.Tensor]]) -> Callable[[], None]:
    config = trial.config
    device = choose_device(config, ranks.local_rank)
    torch.manual_seed(config.seed)
    model = build(config.model.name, experiment.contract, config.model.options).to(device).train()
    step = TrainingStep(
        model, Optimizer(model, config.optimizer, ranks), config.precision, config.compile, graphs=config.cuda_graphs
    )
    at_device = itertools.cycle([on_device(model, batch, bucket_shapes=step.bucket_shapes) for batch in batches])
    count = config.threads or default_threads(config.batch_size, ranks.cores)

    def run() -> None:
        with threads(count):
            step(next(at_device), 0.0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run
