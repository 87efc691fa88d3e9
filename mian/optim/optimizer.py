"""One step of dense weights and of embedding rows, over all ranks."""

from __future__ import annotations

import math

import torch
from torch.autograd.profiler import record_function
from torch.optim.adam import adam

from mian.config import OptimizerConfig
from mian.distributed.collectives import Ranks
from mian.kernels import distinct, sum_by_place
from mian.layers import BatchNormalization
from mian.models import ClickModel
from mian.optim.flat_parameter import FlatParameter
from mian.optim.lr_schedule import rate_factor
from mian.optim.sparse import LazyAdam, RowwiseAdagrad, TableOptimizer

#: Adam's, for dense weights.
EPSILON = 1e-8
#: Rows of a table, int64 ``(N,)``, each once, and their gradients, ``(N, width)``.
RowGradients = tuple[torch.Tensor, torch.Tensor]


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is no number on some rank. All ranks have this in the same step, and no weight has changed.

    Attributes:
        here: whether it is this rank's.
    """

    def __init__(self, here: bool) -> None:
        super().__init__("a loss or a gradient is no number")
        self.here = here


class Optimizer:
    """A model's optimizers, and the exchange of gradients between ranks before they act.

    All dense weights lie in one piece of memory, and so do their gradients: one reduction over the ranks, one clipping, one update. Of an
    embedding table, the ranks exchange only the rows that their batches hold, each once. The gradient of a sharded table has been
    exchanged by its backward pass already. The batch statistics of normalizations are exchanged together with the dense gradients, so
    that their moving averages are the same on all ranks.

    Args:
        model: the model to train; its dense weights are moved into one piece of memory.
        config: the settings.
        ranks: who takes part.

    Attributes:
        ranks: The ranks that exchange gradients.
        pass_gradients: by table, the gradients of each pass of this step so far.
    """

    def __init__(self, model: ClickModel, config: OptimizerConfig, ranks: Ranks) -> None:
        self._config = config
        self.ranks = ranks
        self._betas = (config.beta1, config.beta2)
        self._normalizations = [module for module in model.modules() if isinstance(module, BatchNormalization)]
        statistics = [normalization.batch_statistics for normalization in self._normalizations]
        self._dense = FlatParameter(model.dense_parameters().values(), statistics)
        self._decayed = self._dense.mask(lambda parameter: parameter.dim() > 1)
        moments = {name: torch.zeros_like(self._dense.weight) for name in ("exp_avg", "exp_avg_sq")}
        self._dense_state = {"step": self._dense.weight.new_zeros(()), **moments}
        self._tables = model.tables()
        self._table_optimizers = {name: self._table_optimizer(table.weight) for name, table in self._tables.items()}
        self.pass_gradients: dict[str, list[RowGradients]] = {}

    def state(self) -> dict[str, torch.Tensor]:
        """All that the optimizers remember, by name: the tensors themselves."""
        states = {"dense": self._dense_state, **{name: of.state for name, of in self._table_optimizers.items()}}
        return {f"optimizer.{name}.{key}": value for name, state in states.items() for key, value in state.items()}

    def sharded_rows(self) -> dict[str, int]:
        """Of the state, what is sharded as its table is: by name, how many rows it has over all ranks."""
        return {
            f"optimizer.{name}.{key}": self._tables[name].rows
            for name, table_optimizer in self._table_optimizers.items()
            for key, value in table_optimizer.state.items()
            if self._tables[name].is_sharded and value.dim()
        }

    def begin(self) -> None:
        """Begin a step: no gradients."""
        self._dense.gradient.zero_()
        self.pass_gradients = {name: [] for name in self._tables}
        for table in self._tables.values():
            table.weight.grad = None

    def backward(self, loss: torch.Tensor) -> None:
        """Add a pass's gradients to those of the step; with sharded tables all ranks make the same passes.

        Args:
            loss: scalar; the losses of a step's passes add up to the mean over this rank's samples. With batches of one size on all ranks
                the averaged gradient is that of the mean over the global batch.
        """
        with record_function("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        for name, table in self._tables.items():
            if table.weight.grad is not None:
                self.pass_gradients[name].append((table.weight.grad._indices()[0], table.weight.grad._values()))
                table.weight.grad = None

    @torch.no_grad()
    def step(self, loss: torch.Tensor, progress: float, stop: bool = False) -> bool:
        """Exchange, regularize, clip, update.

        Args:
            loss: of the step, scalar.
            progress: share of the planned samples that are done, from 0 to 1.
            stop: whether this rank is to stop after this step.

        Returns:
            Whether any rank is.

        Raises:
            NotFiniteError: the loss or a gradient of a rank is no number.
        """
        with record_function("update"):
            return self._update(loss, progress, stop)

    def _update(self, loss: torch.Tensor, progress: float, stop: bool) -> bool:
        """Exchange all gradients, then update all weights.

        The last number of the dense gradients is a flag. Its mean over the ranks decides what every rank does next, so that a step
        waits for the device once, to read one number:

        ======== ==========================================
        flag     meaning
        ======== ==========================================
        0        go on
        > 0      some rank is to stop after this step
        NaN      some rank's loss or gradient is not finite
        ======== ==========================================
        """
        table_gradients = {name: _sum(passes) for name, passes in self.pass_gradients.items() if passes}
        replicated = {name: rows for name, rows in table_gradients.items() if not self._tables[name].is_sharded}
        own, flag = self._flag(loss, table_gradients, stop)
        self._dense.flag.copy_(flag)
        # All exchanges come before all updates: if one fails, because a rank is gone, no weight and no moment has changed.
        table_gradients |= self.ranks.allreduce_gradients(self._dense.exchanged, replicated)
        mean = float(self._dense.flag)
        if math.isnan(mean):
            raise NotFiniteError(here=bool(own.isnan()))
        factor = rate_factor(self._config, progress, self.ranks.size)
        self._step_dense(self._config.learning_rate * factor)
        rate_of_tables = (self._config.learning_rate_tables or self._config.learning_rate) * factor
        for name, (rows, values) in table_gradients.items():
            self._step_table(name, rows, values, rate_of_tables)
        for normalization in self._normalizations:
            normalization.follow()
        return mean > 0

    def _flag(
        self, loss: torch.Tensor, table_gradients: dict[str, RowGradients], stop: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """This rank's flag, see :meth:`_update`.

        Returns:
            Scalars: 0, or NaN if this rank's own loss or gradients are not finite; and the flag. The gradient of a sharded table comes
            from all ranks' batches. One that is not finite makes the flag NaN, and says nothing of this rank.
        """
        sums = {name: values.sum() for name, (_, values) in table_gradients.items()}
        replicated = [total for name, total in sums.items() if not self._tables[name].is_sharded]
        own = torch.stack([loss, self._dense.gradient.sum(), *replicated]).sum() * 0.0
        return own, own + sum(sums.values()) * 0.0 + float(stop)

    def _step_dense(self, rate: float) -> None:
        if self._config.l2:
            self._dense.gradient.addcmul_(self._dense.weight, self._decayed, value=self._config.l2)
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([self._dense.weight], self._config.clip_norm)
        # the function behind torch.optim.Adam: making one of that class imports TorchDynamo, which takes each rank two seconds
        adam(
            [self._dense.weight],
            [self._dense.gradient],
            [self._dense_state["exp_avg"]],
            [self._dense_state["exp_avg_sq"]],
            [],
            [self._dense_state["step"]],
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def _step_table(self, name: str, rows: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        if self._config.l2_embedding:
            gradients.add_(self._tables[name].weight.index_select(0, rows), alpha=self._config.l2_embedding)
        self._table_optimizers[name].step(rows, gradients, rate)

    def _table_optimizer(self, table: torch.Tensor) -> TableOptimizer:
        return RowwiseAdagrad(table) if self._config.tables == "rowwise_adagrad" else LazyAdam(table, self._betas)


def _sum(passes: list[RowGradients]) -> RowGradients:
    """The gradients of several passes, of one at least: each row once again."""
    if len(passes) == 1:
        return passes[0]
    rows, places = distinct(torch.cat([rows for rows, _ in passes]))
    return rows, sum_by_place(torch.cat([values for _, values in passes]), places, len(rows))
