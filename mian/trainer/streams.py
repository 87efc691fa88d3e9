"""The splits of a training, as one rank reads them."""

from __future__ import annotations

from dataclasses import dataclass

from mian.config import TrainConfig
from mian.stream import SampleStream
from mian.trainer.ranks import Ranks
from pipeline.contract import Contract


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
    common = {"rank": ranks.rank, "world_size": ranks.size, "workers": config.stream.workers}

    def held_out(split: str) -> SampleStream:
        size = config.evaluation_batch_size
        return SampleStream(config.samples, contract, split, size, shuffle=False, drop_last=False, **common)  # type: ignore[arg-type]

    return Streams(
        training_stream(config, contract, ranks),
        held_out(config.validation_split),
        held_out(config.test_split) if config.test_split is not None else None,
    )


def training_stream(config: TrainConfig, contract: Contract, ranks: Ranks) -> SampleStream:
    """The training split with all columns.

    Raises:
        ContractError, StreamError: as :func:`open_streams`.
    """
    return SampleStream(
        config.samples,
        contract,
        config.train_split,
        config.batch_size,
        rank=ranks.rank,
        world_size=ranks.size,
        seed=config.seed,
        order=config.stream.order,
        workers=config.stream.workers,
    )
