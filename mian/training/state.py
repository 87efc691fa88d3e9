"""The state of a training: model, optimizer, progress, best weights; saved in checkpoints and restored from them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mian.checkpoint.coordinator import Saving
from mian.checkpoint.progress import Progress
from mian.checkpoint.store import CheckpointError, CheckpointStore
from mian.contract import Contract, ContractError
from mian.models import ClickModel, restore, with_calibration
from mian.optim.optimizer import Optimizer
from mian.stream import StreamError
from mian.training.carry_over import CarryOverError, carry_over, carry_over_moments
from mian.training.context import TrainingContext
from mian.training.diagnosis import LOWER, is_finite
from mian.training.loss_meter import LossMeter
from mian.training.new_rows import begin_new_rows
from mian.training.outcome import TrainingError

log = logging.getLogger(__name__)


class TrainingState:
    """Everything that a training changes. All ranks hold one and call each method together.

    Args:
        context: The prepared process.
        contract: The contract of the samples.
        progress: How far the training is: not begun.
        store: Where checkpoints go, on rank 0; None keeps none.

    Attributes:
        model: The model in training; sharded tables hold this rank's rows.
        optimizer: Its optimizer.
        progress: How far the training is.
        meter: The losses since the last point of the training curve.
        best_weights: The weights with the lowest validation logloss, by name; empty if they are the model's own, or there are none.
        has_initial_weights: Whether the training began with the weights of another model.
        initial_calibration: Scale and offset of that model, with which its own metrics are computed. The model in training is uncalibrated.

    Raises:
        ModelError: The model or one of its options is unknown.
    """

    def __init__(self, context: TrainingContext, contract: Contract, progress: Progress, store: CheckpointStore | None) -> None:
        self._context = context
        self._config = context.config
        self._contract = contract
        self._ranks = context.ranks
        self.model = context.build_model(contract)
        self.optimizer = Optimizer(self.model, self._config.optimizer_of_start(), self._ranks)
        self.progress = progress
        self.best_weights: dict[str, torch.Tensor] = {}
        self.has_initial_weights = False
        self.initial_calibration = self.model.calibration
        table_rows = {name: table.rows for name, table in self.model.tables().items() if table.is_sharded}
        rows = {**table_rows, **self.optimizer.sharded_rows()}
        self._saving = Saving(self._ranks, rows, Path(self._config.output), store, self._config.checkpoint.enabled)
        self._saving.broadcast(self.model.state_dict())
        self.meter = LossMeter()  # last, since it starts a clock

    def resume(self, saved: Mapping[str, Any] | None) -> bool:
        """Restore a checkpoint. With the same number of ranks the training goes on as if it had not stopped.

        Args:
            saved: What :meth:`mian.checkpoint.store.CheckpointStore.newest` returned on rank 0; None on the others.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: It is of another release, with other tensors; on rank 0.
            RankError: On the others then.
        """
        shared = self._ranks.broadcast_object(None if saved is None else (saved["progress"], saved["ranks"]))
        if shared is None:
            return False
        values, rank_states = shared
        self.progress = Progress.model_validate({"planned_samples": self.progress.planned_samples, **values})
        if self.progress.best_step:
            self.best_weights = copy.deepcopy(self.model.state_dict())
        tensors = {**self.model.state_dict(), **self.optimizer.state()}
        self._saving.restore(None if saved is None else {**with_calibration(saved["model"]), **saved["optimizer"]}, tensors)
        self._saving.restore(None if saved is None else saved["best"] and with_calibration(saved["best"]), self.best_weights)
        if len(rank_states) == self._ranks.size:
            mine, device = rank_states[self._ranks.rank], self._context.device
            torch.set_rng_state(mine["generator"])
            if device.type == "cuda" and mine["generator_of_gpu"] is not None:
                torch.cuda.set_rng_state(mine["generator_of_gpu"], device)
            self.meter = LossMeter(mine["losses"], mine["loss"])
        else:
            self._context.seed_dropout(self.progress.step)
        self.progress.move_to(self._ranks.size, self._config.batch_size)
        return True

    def begin_with(self, model: ClickModel | None, moments: Mapping[str, torch.Tensor] | None) -> None:
        """Replace the drawn weights with those of a trained model, but for its calibration, which is of the weights that it ended with.

        Args:
            model: The trained model on rank 0, see :func:`mian.training.carry_over.carry_over`; None on the others.
            moments: What its optimizer keeps, if ``init_moments`` asks for it, on rank 0.

        Raises:
            CarryOverError, CheckpointError: The model does not fit, or the output folder has no room for sharded tables; on rank 0.
            ContractError, StreamError: The categories of new values cannot be read from the samples; on rank 0.
            RankError: On the others then.
        """
        tensors = {**self.model.state_dict(), **(self.optimizer.state() if self._config.init_moments else {})}
        whole = self._ranks.run_on_all_ranks(lambda: self._saving.whole(tensors), (CheckpointError,))

        def change() -> None:
            if model is None:
                return
            weights = {name: whole[name] for name in self.model.state_dict()}
            drawn = carry_over(model, self.model, weights)
            if drawn:
                log.warning("these weights have another shape than those of init_from, and are drawn: %s", ", ".join(drawn))
            added = begin_new_rows(model, self.model, weights, self._config, self._contract)
            rate = self._config.optimizer_of_start().learning_rate
            log.info(
                "warm start at a learning rate of %.3g; rows of new values: %s, begun as %s",
                rate,
                f"{added:,}",
                self._config.init_new_rows,
            )
            if moments is not None:
                own = {name: whole[name] for name in self.optimizer.state()}
                if anew := carry_over_moments(model, self.model, moments, own):
                    log.warning("these moments are others than those of init_from, and begin at zero: %s", ", ".join(anew))

        self._ranks.run_on_all_ranks(change, (CarryOverError, ContractError, StreamError))
        self._saving.restore(whole if self._ranks.is_first else None, tensors)
        self.has_initial_weights = True
        self.initial_calibration = self._ranks.broadcast_object(self.initial_calibration if model is None else model.calibration)

    def whole_model(self) -> ClickModel:
        """The model for inference. With sharded tables, rank 0 gets one with all rows, which lie in files of the output folder."""
        if not self.model.is_sharded:
            return self.model.eval()
        weights = self._saving.whole(self.model.state_dict())
        if not self._ranks.is_first:
            return self.model.eval()
        on_cpu = {name: weight.cpu() for name, weight in weights.items()}
        return restore(self._config.model.name, self._contract, self._config.model.options, on_cpu).eval()

    def snapshot(self) -> dict[str, Any]:
        """What a checkpoint holds, except for the ranks' own states. Tensors are the live ones; sharded ones hold this rank's rows."""
        best = self.best_weights
        if not best and self.progress.best_step:
            best = self.model.state_dict()  # the last evaluation found them, or the training is over
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state(), "best": best}
        return {"progress": self.progress.model_dump(), "ranks": [], **tensors}

    def keep_best(self, metrics: Mapping[str, float], is_last: bool) -> None:
        """Remember the model's weights as the best so far.

        Args:
            metrics: Their validation metrics.
            is_last: Whether no step follows, so that no copy is needed.
        """
        self.progress.best, self.progress.best_step = dict(metrics), self.progress.step
        self.best_weights = {} if is_last else copy.deepcopy(self.model.state_dict())
        self._save_best(self.model.state_dict())

    def load_best(self) -> None:
        """Give the model its best weights, and free their memory."""
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
            self.best_weights = {}

    def save(self) -> None:
        """Write a checkpoint, if any are kept.

        Raises:
            TrainingError: A weight is not finite; on the first rank.
            RankError: On the others then.
        """
        if not self._saving.enabled:
            return
        self.check_weights()
        device = self._context.device
        mine = {
            "generator": torch.get_rng_state(),
            "generator_of_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "losses": self.meter.steps,
            "loss": float(self.meter.total),
        }
        rank_states = self._ranks.gather_objects(mine)
        progress = self.progress
        if self.best_weights and self._saving.lacks_best(progress.best_step):
            self._save_best(self.best_weights)
        state = {"progress": progress.model_dump(), "ranks": rank_states}
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state()}
        self._saving.write("step", progress.step, progress.best_step, state, tensors)

    def check_weights(self) -> None:
        """Refuse to keep weights that are not finite; a batch with a finite loss may make them infinite.

        Raises:
            TrainingError: A weight is not finite; on the first rank that has one.
            RankError: On the others then.
        """

        def check() -> None:
            if not is_finite({**self.model.state_dict(), **self.optimizer.state()}):
                step = self.progress.step
                raise TrainingError(f"after step {step}: a weight is NaN or infinite, so the weights are not kept; {LOWER}")

        self._ranks.run_on_all_ranks(check, (TrainingError,))

    def _save_best(self, weights: Mapping[str, torch.Tensor]) -> None:
        step = self.progress.best_step
        self._saving.write("best", step, step, {"validation": self.progress.best}, {"model": weights})
