"""The training loop."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.autograd.profiler import record_function

from mian.checkpoint.coordinator import Saving
from mian.checkpoint.progress import Progress
from mian.checkpoint.store import CheckpointError, CheckpointStore
from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import RankError, Ranks
from mian.distributed.compression import gradient_codec
from mian.evaluation.distributed_metrics import Evaluation, NotANumberError
from mian.evaluation.scoring import evaluate_split
from mian.execution.device import choose_device, warn_of_slow_products
from mian.execution.prefetch import prefetch_to_device
from mian.execution.profiler import Trace
from mian.execution.threads import default_threads, threads
from mian.layers import sharded_tables
from mian.models import ClickModel, build, restore
from mian.optim.optimizer import NotFiniteError, Optimizer
from mian.seeds import mixed_seed
from mian.stream import SampleStream, StreamError
from mian.training.agreement import check_agreement
from mian.training.carry_over import CarryOverError, carry_over, carry_over_moments
from mian.training.data import Streams
from mian.training.diagnosis import LOWER, Diagnosis, is_finite
from mian.training.display import ProgressDisplay
from mian.training.loss_meter import LossMeter
from mian.training.step import TrainingStep

log = logging.getLogger(__name__)

Report = Callable[[Mapping[str, float], int], None]


class TrainingError(RuntimeError):
    """The training cannot go on."""


class TrainingStopped(RuntimeError):  # noqa: N818
    """The training was asked to stop, and did after a step, with a checkpoint where it keeps any."""


@dataclass
class TrainingResult:
    """A finished training: the model with its best weights, of sharded tables this rank's rows, and what happened on the way."""

    model: ClickModel
    best_step: int
    steps: int
    validation: dict[str, float]
    test: Evaluation | None


class Trainer:
    """Trains until the validation logloss stops falling, and keeps the weights that had the lowest.

    Args:
        config: the settings.
        contract: what the samples are.
        streams: the splits, as :func:`open_streams` opens them.
        ranks: who takes part.
        report: given metrics by name and the step that they are of; called on rank 0 alone.
        store: where checkpoints go, on rank 0; None keeps none.
        stopping: asked after every step whether this rank is to stop; when one is, all do.
        trace: a file of this rank's for a trace of some steps, see :class:`mian.execution.profiler.Trace`; None writes none.

    Attributes:
        model: what is trained; with sharded tables it has this rank's rows of them.
        progress: how far it is.

    Raises:
        DisagreementError: the settings, the contract or the code of a rank are not those of rank 0; on all ranks.
        ModelError: the model or one of its options is unknown.
        DeviceError: this machine lacks what the settings ask for.
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
        self._contract = contract
        self._streams = streams
        self._ranks = ranks
        self._report = report
        self._stopping = stopping
        self._trace = Trace(trace)
        self._device = choose_device(config, ranks.local_rank)
        if ranks.is_first:
            warn_of_slow_products(config, self._device)
        ranks.limit_exchanges(config.exchange_timeout_seconds)
        ranks.compute_on(self._device)
        ranks.compress_gradients(gradient_codec(config.optimizer.compression))
        torch.set_num_threads(self._threads(config.batch_size // config.backward_passes_per_step))
        torch.manual_seed(config.seed)
        with sharded_tables(ranks if config.tables.placement == "sharded" and ranks.size > 1 else None):
            self.model = build(config.model.name, contract, config.model.options)
        self.model.set_negative_sampling_rate(contract.negatives_kept(config.train_split))
        self.model.to(self._device)  # drawn on the CPU, so that a seed means the same everywhere
        torch.manual_seed(mixed_seed("dropout", config.seed, ranks.rank))  # dropout differs from rank to rank
        self._optimizer = Optimizer(self.model, config.optimizer, ranks)
        table_rows = {name: table.rows for name, table in self.model.tables().items() if table.is_sharded}
        rows = {**table_rows, **self._optimizer.sharded_rows()}
        self._saving = Saving(ranks, rows, Path(config.output), store, config.checkpoint.enabled)
        self._saving.share(self.model.state_dict())
        self._diagnosis = Diagnosis(self.model, config, contract, ranks)
        self._train_step = TrainingStep(
            self.model,
            self._optimizer,
            config.precision,
            config.compile,
            config.backward_passes_per_step,
            config.cuda_graphs,
        )
        steps = config.epochs * streams.train.steps
        self.progress = Progress(
            planned_samples=min(steps, config.max_steps or steps) * config.batch_size * ranks.size,
            world_size=ranks.size,
            batch_size=config.batch_size,
        )
        self._meter = LossMeter()
        self._best_weights: dict[str, torch.Tensor] = {}
        self._began_with_another = False

    def resume(self, saved: Mapping[str, Any] | None) -> bool:
        """Go on where a checkpoint was taken; on the same number of ranks as if nothing had been, on another with what is left.

        Args:
            saved: what :meth:`CheckpointStore.newest` gave on rank 0; None on the others.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: it is of another release, whose tensors are others; on rank 0.
            RankError: on the others then.
        """
        shared = self._ranks.broadcast_object(None if saved is None else (saved["progress"], saved["ranks"]))
        if shared is None:
            return False
        values, rank_states = shared
        self.progress = Progress.model_validate({"planned_samples": self.progress.planned_samples, **values})
        if self.progress.best_step:
            self._best_weights = copy.deepcopy(self.model.state_dict())
        tensors = {**self.model.state_dict(), **self._optimizer.state()}

        self._saving.restore(None if saved is None else {**saved["model"], **saved["optimizer"]}, tensors)
        self._saving.restore(None if saved is None else saved["best"], self._best_weights)
        if len(rank_states) == self._ranks.size:
            mine = rank_states[self._ranks.rank]
            torch.set_rng_state(mine["generator"])
            if self._device.type == "cuda" and mine["generator_of_gpu"] is not None:
                torch.cuda.set_rng_state(mine["generator_of_gpu"], self._device)
            self._meter = LossMeter(mine["losses"], mine["loss"])
        else:
            torch.manual_seed(mixed_seed("dropout", self._config.seed, self._ranks.rank, self.progress.step))
        self.progress.move_to(self._ranks.size, self._config.batch_size)
        return True

    def begin_with(self, model: ClickModel | None, moments: Mapping[str, torch.Tensor] | None = None) -> None:
        """Begin with the weights of a trained model, in the place of drawn ones; all ranks call this.

        Args:
            model: what has them, see :func:`mian.training.carry_over.carry_over`, on rank 0; None on the others.
            moments: what its optimizer remembers, where ``init_moments`` asks for it, on rank 0.

        Raises:
            CarryOverError, CheckpointError: the model is another one, or the output folder has no room for sharded tables; on rank 0.
            RankError: on the others then.
        """
        tensors = {**self.model.state_dict(), **(self._optimizer.state() if self._config.init_moments else {})}
        whole = self._ranks.run_on_all_ranks(lambda: self._saving.whole(tensors), (CheckpointError,))

        def change() -> None:
            if model is None:
                return
            drawn = carry_over(model, self.model, {name: whole[name] for name in self.model.state_dict()})
            if drawn:
                log.warning("these weights have another shape than those of init_from, and are drawn: %s", ", ".join(drawn))
            if moments is not None:
                own = {name: whole[name] for name in self._optimizer.state()}
                if anew := carry_over_moments(model, self.model, moments, own):
                    log.warning("these moments are others than those of init_from, and begin at zero: %s", ", ".join(anew))

        self._ranks.run_on_all_ranks(change, (CarryOverError,))
        self._saving.restore(whole if self._ranks.is_first else None, tensors)
        self._began_with_another = True

    def whole_model(self) -> ClickModel:
        """The model; with sharded tables every rank must call this. Tables that were split lie in files of the output folder then.

        Returns:
            What is trained; with sharded tables on the first rank another one, with all rows, for inference alone.
        """
        if not self.model.is_sharded:
            return self.model.eval()
        weights = self._saving.whole(self.model.state_dict())
        if not self._ranks.is_first:
            return self.model.eval()
        on_cpu = {name: weight.cpu() for name, weight in weights.items()}
        return restore(self._config.model.name, self._contract, self._config.model.options, on_cpu).eval()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, but for the ranks' own. The tensors are the live ones; an error of another rank leaves them whole.

        Of sharded tables it has this rank's rows alone.
        """
        best = self._best_weights
        if not best and self.progress.best_step:
            best = self.model.state_dict()  # the last evaluation found them, or the training is over
        tensors = {"model": self.model.state_dict(), "optimizer": self._optimizer.state(), "best": best}
        return {"progress": self.progress.model_dump(), "ranks": [], **tensors}

    def run(self, keep: Callable[[TrainingResult], None] = lambda trained: None) -> TrainingResult:
        """Train, and score the test split with the best weights.

        Args:
            keep: called on all ranks when the weights are final, before the test split is scored, which may fail.

        Raises:
            TrainingError: a loss or a weight is no longer a number; on the first rank that knows why.
            RankError: on the others then.
            StreamError: samples cannot be read.
            SpillError: the output folder has no room for scores that memory has none for; on the rank whose it is.
            TrainingStopped: a rank was to stop.
        """
        progress = self.progress
        self._display = ProgressDisplay(progress, self._config.epochs, self._ranks.is_first)
        with self._display, self._trace:
            if self._began_with_another:
                self._report_validation(self._score_validation(), "  before the first step")
            if progress.evaluation_due:
                self._evaluate_and_save()
            while not progress.finished:
                if progress.epoch < self._config.epochs:
                    self._train_epoch()
                else:  # what another number of ranks had left of the last epoch is less than a batch of each rank
                    self._evaluate_and_save()
            if not progress.best_step:  # it had ended, and its best weights could not be read
                self._evaluate_and_save()
        if self._best_weights:
            self.model.load_state_dict(self._best_weights)
            self._best_weights = {}  # what comes now, saving and registering, has their room
        trained = TrainingResult(self.model.eval(), progress.best_step, progress.step, progress.best, None)
        keep(trained)
        if self._streams.test is not None:
            trained.test = self._score(self._streams.test)
        return trained

    def _train_epoch(self) -> None:
        """What is left of an epoch."""
        config, progress = self._config, self.progress
        steps = self._streams.train.steps_after(progress.segments)
        evaluations = self._evaluations(steps)
        self.model.train()
        epoch = self._streams.train.epoch(progress.epoch, progress.step_of_epoch, progress.segments)
        with closing(epoch), prefetch_to_device(self.model, epoch, self._train_step.bucket_shapes) as batches:
            while (drawn := _next(batches)) is not None:
                batch, waited = drawn
                exchanged = self._ranks.exchange_seconds
                try:
                    loss, stop = self._train_step(batch, progress.completed_fraction, self._stopping())
                except NotFiniteError as error:
                    self._end((lambda: self._diagnosis.diagnose_batch(progress)) if error.here else None)
                progress.step_done()
                self._meter.add(loss, waited, self._ranks.exchange_seconds - exchanged)
                self._trace.step_done()
                self._display.step_done(config.batch_size * self._ranks.size)
                if progress.step % config.log_every == 0:
                    self._log_curve()
                every = config.checkpoint.every_steps
                epoch_over = progress.step_of_epoch == steps
                saved = stop or epoch_over or (every is not None and progress.step % every == 0)
                progress.evaluation_due = epoch_over or progress.step_of_epoch in evaluations or self._is_last_step
                if epoch_over:
                    progress.epoch_done()
                if saved or self._is_last_step:  # before scoring, so that a kill meanwhile costs no step
                    self._save()
                if stop and not self._is_last_step:
                    self._ranks.barrier()  # whoever ends first has the launcher end the others, be they writing
                    then = "goes on" if config.checkpoint.enabled else "begins anew: checkpoint.enabled is false"
                    raise TrainingStopped(f"stopped after step {progress.step:,}; started again, it {then}")
                if progress.evaluation_due:
                    self._evaluate_and_save()
                if progress.finished or epoch_over:
                    return
        progress.epoch_done()

    @property
    def _is_last_step(self) -> bool:
        """Whether the step that was done is the training's last."""
        last = self._config.max_steps
        return self.progress.epoch >= self._config.epochs or (last is not None and self.progress.step >= last)

    def _evaluations(self, steps: int) -> set[int]:
        """After which of an epoch's last ``steps`` steps the validation split is scored: at even distances over all of it."""
        samples_done = (
            sum(segment.world_size * segment.batch_size * segment.steps for segment in self.progress.segments)
            / self._global_batch
        )
        times = self._config.evaluations_per_epoch
        after = [round((samples_done + steps) * (number + 1) / times - samples_done) for number in range(times)]
        return {max(1, step) for step in after if step > 0 or not samples_done}

    @property
    def _global_batch(self) -> int:
        return self._config.batch_size * self._ranks.size

    def _log_curve(self) -> None:
        rate = self._meter.steps_per_second()
        means = torch.cat([self._meter.mean().cpu()[None], self._meter.time_shares()])
        self._ranks.allreduce_mean_(means)
        self._meter = LossMeter()
        if self._ranks.is_first:
            loss, waiting, exchanging = means.tolist()
            shares = {"waiting": waiting, "computing": 1.0 - waiting - exchanging, "exchanging": exchanging}
            speed = {"samples_per_second": rate * self._global_batch} if rate else {}
            speed |= {f"time_{name}_share": share for name, share in shares.items()} if rate else {}
            self._report({"train_logloss": loss, "epoch": self.progress.epoch, **speed}, self.progress.step)
            self._display.show(loss, speed.get("samples_per_second"), shares)

    def _evaluate_and_save(self) -> None:
        """Evaluate; where that ends the training, a checkpoint says so."""
        self._evaluate()
        if self.progress.finished:
            self._save()

    def _evaluate(self) -> None:
        """Score the validation split and keep the weights if they are the best so far; every rank comes to the same verdict."""
        progress = self.progress
        progress.evaluation_due = True
        metrics = self._score_validation()
        better = progress.best_step == progress.step or metrics["logloss"] < progress.best["logloss"]  # scored again, or lower
        if better:
            progress.best, progress.best_step = metrics, progress.step
            self._best_weights = {} if self._is_last_step else copy.deepcopy(self.model.state_dict())
            self._save_best(self.model.state_dict())
        progress.bad_evaluations = 0 if better else progress.bad_evaluations + 1
        progress.finished = progress.bad_evaluations >= self._config.patience or self._is_last_step
        progress.evaluation_due = False
        self._report_validation(metrics, "  best" if better else "")

    def _score_validation(self) -> dict[str, float]:
        self._check_weights()
        try:
            metrics = self._score(self._streams.validation).metrics
        except NotANumberError:
            self._end(lambda: self._diagnosis.diagnose_validation(self.progress))
        self._meter.pause()
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
        with threads(self._threads(self._config.evaluation_batch_size)):
            return evaluate_split(self.model, stream, self._ranks, Path(self._config.output))

    def _threads(self, rows: int) -> int:
        return self._config.threads or default_threads(rows, self._ranks.cores)

    def _save(self) -> None:
        """Take a checkpoint; the ranks' own state travels to the first, which has all else."""
        if not self._saving.enabled:
            return
        self._check_weights()
        mine = {
            "generator": torch.get_rng_state(),
            "generator_of_gpu": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
            "losses": self._meter.steps,
            "loss": float(self._meter.total),
        }
        rank_states = self._ranks.gather_objects(mine)
        progress = self.progress
        if self._best_weights and self._saving.lacks_best(progress.best_step):
            self._save_best(self._best_weights)
        state = {"progress": progress.model_dump(), "ranks": rank_states}
        tensors = {"model": self.model.state_dict(), "optimizer": self._optimizer.state()}
        self._saving.write("step", progress.step, progress.best_step, state, tensors)

    def _save_best(self, weights: Mapping[str, torch.Tensor]) -> None:
        step = self.progress.best_step
        self._saving.write("best", step, step, {"validation": self.progress.best}, {"model": weights})

    def _check_weights(self) -> None:
        """Before they are kept: a batch whose loss is a number may make them infinite."""

        def check() -> None:
            if not is_finite({**self.model.state_dict(), **self._optimizer.state()}):
                step = self.progress.step
                raise TrainingError(f"after step {step} weights are no numbers any more, and no checkpoint is taken; {LOWER}")

        self._ranks.run_on_all_ranks(check, (TrainingError,))

    def _end(self, why: Callable[[], str | None] | None) -> NoReturn:
        """End all ranks, which come here together, by the error of the first that has a reason, or else of the first."""

        def tell() -> None:
            if why is not None and (reason := why()):
                raise TrainingError(reason)

        self._ranks.run_on_all_ranks(tell, (StreamError, TrainingError))
        if not self._ranks.is_first:
            raise RankError("rank 0 has said why the training ends")
        raise TrainingError(f"after step {self.progress.step} losses or scores are no numbers any more; {LOWER}")


def _next(batches: Iterator[Mapping[str, torch.Tensor]]) -> tuple[Mapping[str, torch.Tensor], float] | None:
    """The next batch, and for how many seconds it was waited for."""
    began = time.perf_counter()
    with record_function("reading"):
        batch = next(batches, None)
    return None if batch is None else (batch, time.perf_counter() - began)
