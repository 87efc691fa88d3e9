"""The training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from mian.config import TrainConfig
from mian.models import ClickModel, build
from mian.stream import SampleStream
from mian.trainer.evaluation import Scores, score_together
from mian.trainer.optimizer import Optimizer
from mian.trainer.ranks import RankError, Ranks
from mian.trainer.step import TrainingStep
from pipeline.contract import Contract

Report = Callable[[Mapping[str, float], int], None]


class TrainingError(RuntimeError):
    """The training cannot go on."""


@dataclass
class Trained:
    """A finished training: the model with its best weights, and what happened on the way."""

    model: ClickModel
    best_step: int
    steps: int
    validation: dict[str, float]
    test: Scores | None


@dataclass
class Streams:
    """The splits as one rank reads them."""

    train: SampleStream
    validation: SampleStream
    test: SampleStream | None


def open_streams(config: TrainConfig, contract: Contract, ranks: Ranks) -> Streams:
    """Open the splits of a training.

    Raises:
        ContractError: a split is not there.
        StreamError: its files are damaged, or too few for the ranks.
    """
    common = {"rank": ranks.rank, "world_size": ranks.size, "seed": config.seed, "workers": config.stream.workers}

    def held_out(split: str) -> SampleStream:
        size = config.evaluation_batch_size
        return SampleStream(config.samples, contract, split, size, shuffle=False, drop_last=False, **common)  # type: ignore[arg-type]

    return Streams(
        SampleStream(
            config.samples,
            contract,
            config.train_split,
            config.batch_size,
            order=config.stream.order,
            **common,  # type: ignore[arg-type]
        ),
        held_out(config.validation_split),
        held_out(config.test_split) if config.test_split is not None else None,
    )


class Trainer:
    """Trains until the validation logloss stops falling, and keeps the weights that had the lowest.

    Args:
        config: the settings.
        contract: what the samples are.
        streams: the splits, as :func:`open_streams` opens them.
        ranks: who takes part.
        report: given metrics by name and the step that they are of; called on rank 0 alone.

    Raises:
        ModelError: the model or one of its options is unknown.
    """

    def __init__(self, config: TrainConfig, contract: Contract, streams: Streams, ranks: Ranks, report: Report) -> None:
        self._config = config
        self._streams = streams
        self._ranks = ranks
        self._report = report
        torch.set_num_threads(config.threads or ranks.default_threads())
        torch.manual_seed(config.seed)
        self.model = build(config.model.name, contract, config.model.options)
        self.model.calibrate(contract.negatives_kept(config.train_split))
        ranks.broadcast(self.model)
        torch.manual_seed(config.seed * 1_000_003 + ranks.rank + 1)  # dropout differs from rank to rank
        self._train_step = TrainingStep(self.model, Optimizer(self.model, config.optimizer, ranks))
        steps = streams.train.steps
        self._planned_steps = min(config.epochs * steps, config.max_steps or config.epochs * steps)
        times = config.evaluations_per_epoch
        self._evaluate_after = {max(1, round(steps * (i + 1) / times)) for i in range(times)}
        self._global_batch = config.batch_size * ranks.size
        self._curve = _Curve()
        self._step = 0
        self._bad_evaluations = 0
        self._best_step = 0
        self._best: dict[str, float] = {"logloss": math.inf}
        self._best_weights: dict[str, torch.Tensor] = {}

    def run(self) -> Trained:
        """Train.

        Raises:
            TrainingError: the loss is no longer a number; on the first rank, which says so for all.
            RankError: on the others then.
            StreamError: samples cannot be read.
        """
        total = self._planned_steps * self._global_batch
        self._bar = tqdm(total=total, unit=" samples", unit_scale=True, disable=not self._ranks.is_first, mininterval=1.0)
        with self._bar:
            for epoch in range(self._config.epochs):
                if self._train_epoch(epoch):
                    break
        self.model.load_state_dict(self._best_weights)
        test = score_together(self.model, self._streams.test, self._ranks) if self._streams.test is not None else None
        return Trained(self.model.eval(), self._best_step, self._step, self._best, test)

    def _train_epoch(self, epoch: int) -> bool:
        """One epoch; whether training is over."""
        self.model.train()
        with closing(self._streams.train.epoch(epoch)) as batches:
            for step_of_epoch, batch in enumerate(batches, start=1):
                self._curve.add(self._train_step(batch, self._step / self._planned_steps))
                self._step += 1
                self._bar.update(self._global_batch)
                if self._step % self._config.log_every == 0:
                    self._log_curve(epoch)
                last = self._step == self._planned_steps
                if last or step_of_epoch in self._evaluate_after:
                    self._evaluate(epoch)
                    if last or self._bad_evaluations >= self._config.patience:
                        return True
        return False

    def _log_curve(self, epoch: int) -> None:
        steps, seconds = self._curve.steps, self._curve.seconds()
        mean = float(self._ranks.mean(self._curve.mean()))
        self._curve = _Curve()
        if not math.isfinite(mean):
            raise self._diverged(f"the training loss is {mean} within the last {steps} steps before step {self._step}")
        if self._ranks.is_first:
            rate = steps * self._global_batch / seconds
            self._report({"train_logloss": mean, "samples_per_second": rate, "epoch": epoch}, self._step)
            self._bar.set_postfix(logloss=f"{mean:.4f}")

    def _evaluate(self, epoch: int) -> None:
        """Score the validation split and keep the weights if they are the best so far; every rank comes to the same verdict."""
        scores = score_together(self.model, self._streams.validation, self._ranks)
        if not np.isfinite(scores.probabilities).all():
            raise self._diverged(f"the model's scores are not numbers any more after step {self._step}")
        metrics = scores.metrics()
        self._curve.pause()
        better = metrics["logloss"] < self._best["logloss"]
        if better:
            self._best, self._best_step = metrics, self._step
            self._best_weights = copy.deepcopy(self.model.state_dict())
        self._bad_evaluations = 0 if better else self._bad_evaluations + 1
        if self._ranks.is_first:
            self._report({f"validation_{name}": value for name, value in metrics.items()} | {"epoch": epoch}, self._step)
            self._bar.write(
                f"step {self._step:>7,}  epoch {epoch}  validation: logloss {metrics['logloss']:.5f}  AUC {metrics['auc']:.5f}  "
                f"gAUC {metrics['gauc']:.5f}  calibration {metrics['calibration']:.3f}{'  best' if better else ''}"
            )

    def _diverged(self, what: str) -> Exception:
        """All ranks come to this together; one of them says it."""
        if not self._ranks.is_first:
            return RankError("rank 0 has said why the training ends")
        return TrainingError(f"{what}; lower optimizer.learning_rate, or set optimizer.clip_norm")


class _Curve:
    """The training loss since the last point of the curve; the sum stays a tensor, so that no step waits for it."""

    def __init__(self) -> None:
        self.steps = 0
        self._sum = torch.zeros(())
        self._started = time.perf_counter()
        self._last = self._started

    def add(self, loss: torch.Tensor) -> None:
        self._sum += loss
        self.steps += 1
        self._last = time.perf_counter()

    def mean(self) -> torch.Tensor:
        return self._sum / self.steps

    def seconds(self) -> float:
        """Time spent on steps."""
        return self._last - self._started

    def pause(self) -> None:
        """Leave out the time since the last step."""
        self._started += time.perf_counter() - self._last
        self._last = time.perf_counter()
