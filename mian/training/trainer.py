"""The training loop.

Its steps share one state and one order of exchanges between ranks, so it is one class, and this file is longer than others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, NoReturn

import torch

from mian.checkpoint.progress import Progress
from mian.checkpoint.store import CheckpointStore
from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import RankError, Ranks
from mian.evaluation.distributed_metrics import Evaluation, NotANumberError
from mian.evaluation.platt import PlattFit
from mian.evaluation.scoring import evaluate_before_and_after, evaluate_split
from mian.execution.prefetch import prefetch_to_device
from mian.execution.profiler import Trace
from mian.execution.threads import threads
from mian.models import ClickModel
from mian.optim.optimizer import NotFiniteError
from mian.stream import SampleStream, StreamError
from mian.training.agreement import check_agreement
from mian.training.calibration import calibrate_best, calibration_metrics
from mian.training.context import TrainingContext
from mian.training.data import Streams, next_batch
from mian.training.diagnosis import LOWER, Diagnosis
from mian.training.display import ProgressDisplay
from mian.training.loss_meter import LossMeter
from mian.training.outcome import TrainingError, TrainingResult, TrainingStopped
from mian.training.state import TrainingState
from mian.training.step import TrainingStep

Report = Callable[[Mapping[str, float], int], None]
"""Gets metrics by name, and the step that they belong to."""


class Trainer:
    """Trains until the validation logloss stops falling, and keeps the weights with the lowest one.

    Args:
        config: The settings.
        contract: The contract of the samples.
        streams: The splits, as :func:`mian.training.open_streams` opens them.
        ranks: The ranks of the training.
        report: Called on rank 0 with metrics and their step.
        store: Where checkpoints go, on rank 0; None keeps none.
        stopping: Called after every step on every rank. If any rank returns True, all ranks save a checkpoint and raise
            :class:`TrainingStopped`.
        trace: A file of this rank for a trace of some steps, see :class:`mian.execution.profiler.Trace`; None writes none.

    Raises:
        DisagreementError: The settings, the contract or the code of a rank differ from rank 0's; on all ranks.
        ModelError: The model or one of its options is unknown.
        DeviceError: This machine lacks what the settings ask for.
    """

    def __init__(
        self,
        config: TrainConfig,
        contract: Contract,
        streams: Streams,
        ranks: Ranks,
        report: Report,
        store: CheckpointStore | None = None,
        stopping: Callable[[], bool] = lambda: False,
        trace: Path | None = None,
    ) -> None:
        check_agreement(ranks, config, contract)
        self._config = config
        self._streams = streams
        self._ranks = ranks
        self._report = report
        self._stopping = stopping
        self._trace = Trace(trace)
        self._context = TrainingContext.prepare(config, ranks)
        steps = config.epochs * streams.train.steps
        progress = Progress(
            planned_samples=min(steps, config.max_steps or steps) * config.batch_size * ranks.size,
            world_size=ranks.size,
            batch_size=config.batch_size,
        )
        self._state = TrainingState(self._context, contract, progress, store)
        self._diagnosis = Diagnosis(self.model, config, contract, ranks)
        self._train_step = TrainingStep(
            self.model,
            self._state.optimizer,
            config.precision,
            config.compile,
            config.backward_passes_per_step,
            config.cuda_graphs,
        )

    @property
    def model(self) -> ClickModel:
        """The model in training; sharded tables hold this rank's rows."""
        return self._state.model

    @property
    def progress(self) -> Progress:
        """How far the training is."""
        return self._state.progress

    def resume(self, saved: Mapping[str, Any] | None) -> bool:
        """See :meth:`mian.training.state.TrainingState.resume`."""
        return self._state.resume(saved)

    def begin_with(self, model: ClickModel | None, moments: Mapping[str, torch.Tensor] | None = None) -> None:
        """See :meth:`mian.training.state.TrainingState.begin_with`."""
        self._state.begin_with(model, moments)

    def whole_model(self) -> ClickModel:
        """See :meth:`mian.training.state.TrainingState.whole_model`."""
        return self._state.whole_model()

    def state(self) -> dict[str, Any]:
        """See :meth:`mian.training.state.TrainingState.snapshot`. A step that another rank's error ends leaves it unchanged."""
        return self._state.snapshot()

    def run(self, keep: Callable[[TrainingResult], None] = lambda trained: None) -> TrainingResult:
        """Train, calibrate the best weights if ``calibration`` asks for it, and score the test split with them.

        Args:
            keep: Called on all ranks when the weights are final, before the test split is scored, since scoring may fail.

        Raises:
            TrainingError: A loss or a weight is no longer finite; on the first rank that knows why.
            RankError: On the others then.
            StreamError: Samples cannot be read.
            SpillError: The output folder has no room for scores; on the rank that found out.
            TrainingStopped: A rank was asked to stop.
        """
        progress = self.progress
        self._display = ProgressDisplay(progress, self._config.epochs, self._ranks.is_first)
        with self._display, self._trace:
            if self._state.has_initial_weights:
                with self.model.calibrated_by(*self._state.initial_calibration):
                    initial = self._score_validation()
                self._report_validation(initial, "  before the first step")
            if progress.evaluation_due:
                self._evaluate_and_save()
            while not progress.finished:
                if progress.epoch < self._config.epochs:
                    self._train_epoch()
                else:  # another number of ranks has left less of the last epoch than a batch for each rank
                    self._evaluate_and_save()
            if not progress.best_step:  # the training had ended, and its best weights could not be read
                self._evaluate_and_save()
        self._state.load_best()  # before saving and registering, which need the memory of the best weights
        trained = TrainingResult(self.model.eval(), progress.best_step, progress.step, progress.best, None, self._calibrate())
        keep(trained)
        if self._streams.test is not None and trained.is_calibrated:
            with self._evaluation_threads():
                both = evaluate_before_and_after(self.model, self._streams.test, self._ranks, Path(self._config.output))
            trained.test_uncalibrated, trained.test = both
        elif self._streams.test is not None:
            trained.test = self._score(self._streams.test)
        return trained

    def _calibrate(self) -> PlattFit | None:
        if self._config.calibration == "none":
            return None
        with self._evaluation_threads():
            found = calibrate_best(self.model, self._streams.validation, self._ranks, self._config.validation_split)
        if self._ranks.is_first:
            self._report(calibration_metrics(found), self.progress.best_step)
        return found

    def _train_epoch(self) -> None:
        """Train what is left of an epoch."""
        progress = self.progress
        steps = self._streams.train.steps_after(progress.segments)
        evaluations = self._evaluations(steps)
        self.model.train()
        epoch = self._streams.train.epoch(progress.epoch, progress.step_of_epoch, progress.segments)
        with closing(epoch), prefetch_to_device(self.model, epoch, self._train_step.bucket_shapes) as batches:
            while (drawn := next_batch(batches)) is not None:
                stop = self._step(*drawn)
                epoch_over = progress.step_of_epoch == steps
                progress.evaluation_due = epoch_over or progress.step_of_epoch in evaluations or self._is_last_step
                if epoch_over:
                    progress.epoch_done()
                self._save_or_stop(stop, epoch_over)
                if progress.evaluation_due:
                    self._evaluate_and_save()
                if progress.finished or epoch_over:
                    return
        progress.epoch_done()

    def _step(self, batch: Mapping[str, torch.Tensor], waited: float) -> bool:
        """Train on a batch, and count the step. Whether any rank is to stop.

        Args:
            batch: See :class:`mian.training.step.TrainingStep`.
            waited: For how many seconds the batch was waited for.
        """
        progress, state = self.progress, self._state
        exchanged = self._ranks.exchange_seconds
        try:
            loss, stop = self._train_step(batch, progress.completed_fraction, self._stopping())
        except NotFiniteError as error:
            self._end((lambda: self._diagnosis.diagnose_batch(progress)) if error.here else None)
        progress.step_done()
        state.meter.add(loss, waited, self._ranks.exchange_seconds - exchanged)
        self._trace.step_done()
        self._display.step_done(self._global_batch)
        if progress.step % self._config.log_every == 0:
            self._log_curve()
        return stop

    def _save_or_stop(self, stop: bool, epoch_over: bool) -> None:
        """Take the checkpoint that is due after a step, before any scoring, so that a kill while scoring costs no step.

        Raises:
            TrainingStopped: A rank was asked to stop, and steps are left.
        """
        config, step = self._config, self.progress.step
        every = config.checkpoint.every_steps
        if stop or epoch_over or (every is not None and step % every == 0) or self._is_last_step:
            self._state.save()
        if stop and not self._is_last_step:
            self._ranks.barrier()  # the launcher ends all ranks as soon as one ends, even while they write
            then = "goes on" if config.checkpoint.enabled else "begins anew: checkpoint.enabled is false"
            raise TrainingStopped(f"stopped after step {step:,}; started again, it {then}")

    @property
    def _is_last_step(self) -> bool:
        """Whether no step follows the one that was done."""
        last = self._config.max_steps
        return self.progress.epoch >= self._config.epochs or (last is not None and self.progress.step >= last)

    def _evaluations(self, steps: int) -> set[int]:
        """After which of an epoch's last ``steps`` steps the validation split is scored: at even distances over the epoch."""
        done = sum(each.world_size * each.batch_size * each.steps for each in self.progress.segments) / self._global_batch
        times = self._config.evaluations_per_epoch
        after = [round((done + steps) * (number + 1) / times - done) for number in range(times)]
        return {max(1, step) for step in after if step > 0 or not done}

    @property
    def _global_batch(self) -> int:
        return self._config.batch_size * self._ranks.size

    def _log_curve(self) -> None:
        meter = self._state.meter
        rate = meter.steps_per_second()
        means = torch.cat([meter.mean().cpu()[None], meter.time_shares()])
        self._ranks.allreduce_mean_(means)
        self._state.meter = LossMeter()
        if self._ranks.is_first:
            loss, waiting, exchanging = means.tolist()
            shares = {"waiting": waiting, "computing": 1.0 - waiting - exchanging, "exchanging": exchanging}
            speed = {"samples_per_second": rate * self._global_batch} if rate else {}
            speed |= {f"time_{name}_share": share for name, share in shares.items()} if rate else {}
            self._report({"train_logloss": loss, "epoch": self.progress.epoch, **speed}, self.progress.step)
            self._display.show(loss, speed.get("samples_per_second"), shares)

    def _evaluate_and_save(self) -> None:
        """Evaluate; if that ends the training, a checkpoint says so."""
        self._evaluate()
        if self.progress.finished:
            self._state.save()

    def _evaluate(self) -> None:
        """Score the validation split, and keep the weights if they are the best so far. Every rank comes to the same verdict."""
        progress = self.progress
        progress.evaluation_due = True
        metrics = self._score_validation()
        better = progress.best_step == progress.step or metrics["logloss"] < progress.best["logloss"]  # scored again, or lower
        if better:
            self._state.keep_best(metrics, self._is_last_step)
        progress.bad_evaluations = 0 if better else progress.bad_evaluations + 1
        progress.finished = progress.bad_evaluations >= self._config.patience or self._is_last_step
        progress.evaluation_due = False
        self._report_validation(metrics, "  best" if better else "")

    def _score_validation(self) -> dict[str, float]:
        self._state.check_weights()
        try:
            metrics = self._score(self._streams.validation).metrics
        except NotANumberError:
            self._end(lambda: self._diagnosis.diagnose_validation(self.progress))
        self._state.meter.pause()
        return metrics

    def _report_validation(self, metrics: Mapping[str, float], remark: str) -> None:
        if self._ranks.is_first:
            epoch, step = self.progress.epoch_of_step, self.progress.step
            self._report({f"validation_{name}": value for name, value in metrics.items()} | {"epoch": epoch}, step)
            self._display.write(
                f"step {step:>7,}  epoch {epoch}  validation: logloss {metrics['logloss']:.5f}  AUC {metrics['auc']:.5f}  "
                f"gAUC {metrics['gauc']:.5f}  calibration {metrics['calibration']:.3f}{remark}"
            )

    def _score(self, stream: SampleStream) -> Evaluation:
        with self._evaluation_threads():
            return evaluate_split(self.model, stream, self._ranks, Path(self._config.output))

    def _evaluation_threads(self) -> AbstractContextManager[None]:
        return threads(self._context.threads(self._config.evaluation_batch_size))

    def _end(self, why: Callable[[], str | None] | None) -> NoReturn:
        """End all ranks, which call this together, by the error of the first one that has a reason, or else of rank 0.

        Args:
            why: Finds this rank's reason; None if it has none.
        """

        def tell() -> None:
            if why is not None and (reason := why()):
                raise TrainingError(reason)

        self._ranks.run_on_all_ranks(tell, (StreamError, TrainingError))
        if not self._ranks.is_first:
            raise RankError("rank 0 has an error, and its error line gives the reason")
        raise TrainingError(f"after step {self.progress.step}: a loss or a score is NaN or infinite; {LOWER}")
