"""The splits of a training, as one rank reads them."""

from __future__ import annotations

from dataclasses import dataclass

from mian.config import TrainConfig
from mian.models import model_columns
from mian.stream import SampleStream
from mian.trainer.ranks import Ranks
from pipeline.contract import Contract
from pipeline.contract.document import LABEL_COLUMN, USER_COLUMN


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
        ModelError: the model or one of its options is unknown.
        StreamError: its files are damaged, or its rows too few for the ranks.
    """
    of_model = model_columns(config.model.name, contract, config.model.options)
    common = {
        "rank": ranks.rank,
        "world_size": ranks.size,
        "seed": config.seed,
        "workers": config.stream.workers,
        "verify": config.stream.verify,
    }

    def held_out(split: str) -> SampleStream:
        return SampleStream(
            config.samples,
            contract,
            split,
            config.evaluation_batch_size,
            shuffle=False,
            drop_last=False,
            columns=(*of_model, LABEL_COLUMN, USER_COLUMN),
            **common,  # type: ignore[arg-type]
        )

    return Streams(
        SampleStream(
            config.samples,
            contract,
            config.train_split,
            config.batch_size,
            order=config.stream.order,
            shuffle_window=config.stream.shuffle_window,
            resident=config.stream.resident,
            columns=(*of_model, LABEL_COLUMN),
            **common,  # type: ignore[arg-type]
        ),
        held_out(config.validation_split),
        held_out(config.test_split) if config.test_split is not None else None,
    )
