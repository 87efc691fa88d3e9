"""Adam for dense weights, lazy Adam for embedding rows, one step over all ranks."""

from __future__ import annotations

import torch

from mian.config import OptimizerConfig
from mian.models import ClickModel
from mian.trainer.flat import FlatParameter
from mian.trainer.ranks import Ranks
from mian.trainer.tables import LazyAdam

#: What is left of the learning rate at the end of a linear schedule.
FINAL_SHARE = 0.01


class Optimizer:
    """A model's optimizers, and the exchange of gradients between ranks before they act.

    All dense weights lie in one piece of memory, and so do their gradients: one reduction over the ranks, one clipping, one update. Of a
    table the ranks exchange the rows that their batches hold, each once.

    Args:
        model: the model to train; its dense weights are moved into one piece of memory.
        config: the settings.
        ranks: who takes part.
    """

    def __init__(self, model: ClickModel, config: OptimizerConfig, ranks: Ranks) -> None:
        self._config = config
        self._ranks = ranks
        self._betas = (config.beta1, config.beta2)
        self._dense = FlatParameter(model.dense_parameters().values())
        self._decayed = self._dense.mask(lambda parameter: parameter.dim() > 1)
        self._adam = torch.optim.Adam([self._dense.weight], betas=self._betas, fused=True)
        moments = {name: torch.zeros_like(self._dense.weight) for name in ("exp_avg", "exp_avg_sq")}
        self._adam.state[self._dense.weight] = {"step": torch.zeros(()), **moments}  # there before the first step, to be restored
        self._tables = model.tables()
        self._lazy = {name: LazyAdam(table, self._betas) for name, table in self._tables.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """All that the optimizers remember, by name: the tensors themselves."""
        states = {"dense": self._adam.state[self._dense.weight], **{name: lazy.state for name, lazy in self._lazy.items()}}
        return {f"optimizer.{name}.{key}": value for name, state in states.items() for key, value in state.items()}

    def step(self, loss: torch.Tensor, progress: float, stop: bool = False) -> bool:
        """Backward, exchange, regularize, clip, update.

        Args:
            loss: scalar, the mean over this rank's samples. With batches of one size on all ranks the averaged gradient is that of
                the mean over the global batch.
            progress: share of the planned samples that are done, from 0 to 1.
            stop: whether this rank is to stop after this step.

        Returns:
            Whether any rank is.
        """
        self._dense.gradient.zero_()
        for table in self._tables.values():
            table.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        # all exchanges come before all updates: where one fails, because a rank is gone, no weight and no moment has changed
        stops = self._exchange_dense(stop)
        exchanged = {name: self._exchange_rows(table) for name, table in self._tables.items() if table.grad is not None}
        rate = self._learning_rate(progress)
        self._step_dense(rate)
        for name, (rows, gradients) in exchanged.items():
            self._step_table(name, rows, gradients, rate)
        return stops

    @torch.no_grad()
    def _exchange_dense(self, stop: bool) -> bool:
        """Whether any rank is to stop travels with the gradients."""
        self._dense.flag.fill_(float(stop))
        self._ranks.mean_(self._dense.gradient_and_flag)
        return bool(self._dense.flag > 0) if self._ranks.size > 1 else stop

    def _exchange_rows(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert table.grad is not None, "it was looked up"
        return self._ranks.mean_of_rows(table.grad._indices()[0], table.grad._values())

    @torch.no_grad()
    def _step_dense(self, rate: float) -> None:
        if self._config.l2:
            self._dense.gradient.addcmul_(self._dense.weight, self._decayed, value=self._config.l2)
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([self._dense.weight], self._config.clip_norm)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()

    @torch.no_grad()
    def _step_table(self, name: str, rows: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        if self._config.l2_embedding:
            gradients.add_(self._tables[name].index_select(0, rows), alpha=self._config.l2_embedding)
        self._lazy[name].step(rows, gradients, rate)

    def _learning_rate(self, progress: float) -> float:
        falling = max(FINAL_SHARE, 1.0 - progress) if self._config.schedule == "linear" else 1.0
        return self._config.learning_rate * falling
