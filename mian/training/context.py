"""What a training sets for its whole process: device, threads, exchanges between ranks, random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import Ranks
from mian.distributed.compression import gradient_codec
from mian.execution.device import choose_device, warn_of_slow_products
from mian.execution.threads import default_threads
from mian.layers import sharded_tables
from mian.models import ClickModel, build
from mian.seeds import mixed_seed


@dataclass(frozen=True)
class TrainingContext:
    """The process of one rank, prepared for a training; see :meth:`prepare`."""

    config: TrainConfig
    ranks: Ranks
    device: torch.device

    @classmethod
    def prepare(cls, config: TrainConfig, ranks: Ranks) -> TrainingContext:
        """Choose the device, and set the process's threads, its seed and how its ranks exchange tensors. All ranks call this.

        Raises:
            DeviceError: This machine lacks what the settings ask for.
        """
        context = cls(config, ranks, choose_device(config, ranks.local_rank))
        if ranks.is_first:
            warn_of_slow_products(config, context.device)
        ranks.limit_exchanges(config.exchange_timeout_seconds)
        ranks.compute_on(context.device)
        ranks.compress_gradients(gradient_codec(config.optimizer.compression))
        torch.set_num_threads(context.threads(config.batch_size // config.backward_passes_per_step))
        torch.manual_seed(config.seed)
        return context

    def build_model(self, contract: Contract) -> ClickModel:
        """Build the model on its device; sharded tables hold this rank's rows. All ranks call this, once.

        The weights are drawn on the CPU, so that a seed gives the same ones on every device. Dropout draws other numbers on each rank.

        Raises:
            ModelError: The model or one of its options is unknown.
        """
        config, ranks = self.config, self.ranks
        with sharded_tables(ranks if config.tables.placement == "sharded" and ranks.size > 1 else None):
            model = build(config.model.name, contract, config.model.options)
        model.set_negative_sampling_rate(contract.negatives_kept(config.train_split))
        model.to(self.device)
        self.seed_dropout()
        return model

    def seed_dropout(self, *parts: int) -> None:
        """Seed dropout with the configuration's seed, the rank, and ``parts``."""
        torch.manual_seed(mixed_seed("dropout", self.config.seed, self.ranks.rank, *parts))

    def threads(self, rows: int) -> int:
        """How many threads compute a batch of ``rows`` samples."""
        return self.config.threads or default_threads(rows, self.ranks.cores)
