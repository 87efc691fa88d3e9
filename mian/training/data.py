"""The splits of a training, as one rank reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.autograd.profiler import record_function

from mian.config import TrainConfig
from mian.contract import Contract
from mian.contract.document import LABEL_COLUMN, USER_COLUMN
from mian.distributed.collectives import Ranks
from mian.models import model_columns
from mian.stream import SampleStream


@dataclass
class Streams:
    """The splits as one rank reads them."""

    train: SampleStream
    validation: SampleStream
    test: SampleStream | None


def open_streams(config: TrainConfig, contract: Contract, ranks: Ranks) -> Streams:
    """Open the splits of a training, with the columns that are used.

    Raises:
        ContractError: a split is not there, or negatives of a held-out one were thinned.
        ModelError: the model or one of its options is unknown.
        StreamError: its files are damaged, or its rows too few for the ranks.
    """
    model_inputs = model_columns(config.model.name, contract, config.model.options)
    held_out = (*model_inputs, LABEL_COLUMN, USER_COLUMN)
    return Streams(
        training_stream(config, contract, ranks, (*model_inputs, LABEL_COLUMN)),
        held_out_stream(config, contract, ranks, config.validation_split, held_out),
        held_out_stream(config, contract, ranks, config.test_split, held_out) if config.test_split is not None else None,
    )


def training_stream(config: TrainConfig, contract: Contract, ranks: Ranks, columns: Sequence[str] | None = None) -> SampleStream:
    """Open the training split; with all columns where none are named.

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
        shuffle_window=config.stream.shuffle_window,
        mixed_row_groups=config.stream.mixed_row_groups,
        resident=config.stream.resident,
        verify=config.stream.verify,
        workers=config.stream.workers,
        columns=columns,
    )


def held_out_stream(
    config: TrainConfig, contract: Contract, ranks: Ranks, split: str, columns: Sequence[str] | None = None
) -> SampleStream:
    """Open a split to score; with all columns where none are named.

    Raises:
        ContractError: the split is not there, or its negatives were thinned.
        StreamError: as :func:`open_streams`.
    """
    contract.check_unthinned(split)
    return SampleStream(
        config.samples,
        contract,
        split,
        config.evaluation_batch_size,
        rank=ranks.rank,
        world_size=ranks.size,
        shuffle=False,
        drop_last=False,
        verify=config.stream.verify,
        workers=config.stream.workers,
        columns=columns,
    )


def next_batch(batches: Iterator[Mapping[str, torch.Tensor]]) -> tuple[Mapping[str, torch.Tensor], float] | None:
    """The next batch, and for how many seconds it was waited for; None after the last one."""
    began = time.perf_counter()
    with record_function("reading"):
        batch = next(batches, None)
    return None if batch is None else (batch, time.perf_counter() - began)
