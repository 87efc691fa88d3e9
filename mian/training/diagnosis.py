"""Which rows of a batch have a loss that is no number, and where they lie."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import closing
from zoneinfo import ZoneInfo

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow import parquet as pq
from torch.nn.functional import binary_cross_entropy_with_logits

from mian.checkpoint.progress import Progress
from mian.config import TrainConfig
from mian.contract import Contract
from mian.contract.document import ID_COLUMN, LABEL_COLUMN, LENGTH_COLUMN, TIME_COLUMN, USER_COLUMN
from mian.distributed.collectives import Ranks
from mian.execution.prefetch import on_device
from mian.models import ClickModel
from mian.training.data import held_out_stream, training_stream

SHOWN = 3
"""So many rows are named."""

LOWER = "lower optimizer.learning_rate, or set optimizer.clip_norm"

Batch = Mapping[str, torch.Tensor]


class Diagnosis:
    """Finds out why a loss or a score is no number.

    Args:
        model: what is trained.
        config: the training's settings.
        contract: of its samples.
        ranks: who takes part; one rank alone may ask.
    """

    def __init__(self, model: ClickModel, config: TrainConfig, contract: Contract, ranks: Ranks) -> None:
        self._model = model
        self._config = config
        self._contract = contract
        self._ranks = ranks

    def diagnose_batch(self, progress: Progress) -> str:
        """Why this rank's batch of the step that comes next has no loss, or no gradient; it is drawn again, with all columns."""
        stream = training_stream(self._config, self._contract, self._ranks)
        with closing(stream.epoch(progress.epoch, progress.step_of_epoch, progress.segments)) as batches:
            reason = self._blame(next(batches), self._config.train_split)
        if reason is None:
            looked_at = "values" if self._model.is_sharded else "values and losses"
            reason = f"all its {looked_at} are numbers, and a gradient is none; {LOWER}"
        return (
            f"rank {self._ranks.rank}: step {progress.step + 1} cannot be done, the loss or a gradient is no number; batch "
            f"{progress.step_of_epoch} of epoch {progress.epoch} on this rank: {reason}"
        )

    def diagnose_validation(self, progress: Progress) -> str | None:
        """Why scores of this rank's part of the validation split are no numbers; None where they are."""
        split = self._config.validation_split
        with closing(held_out_stream(self._config, self._contract, self._ranks, split).epoch(0)) as batches:
            reason = next(filter(None, (self._blame(batch, split) for batch in batches)), None)
        return reason and f"rank {self._ranks.rank}: after step {progress.step} split {split!r} cannot be scored: {reason}"

    def _blame(self, batch: Batch, split: str) -> str | None:
        return find_non_finite_rows(self._model, batch, self._contract, self._config.samples, split)


def find_non_finite_rows(model: ClickModel, batch: Batch, contract: Contract, samples: str, split: str) -> str | None:
    """Say which rows of a batch have a value, or else a loss, that is no number, and what to do.

    Args:
        model: what gives the loss; it is asked without dropout, and not at all where its tables are sharded: the other ranks are not there.
        batch: all columns.
        contract: of the samples.
        samples: where they lie.
        split: which of theirs the batch is of.

    Returns:
        None where every value, and every loss that was asked for, is a number.
    """
    total = len(batch[LABEL_COLUMN])
    if values := _values(batch):
        named = _names({row: f"{column} is {value}" for row, (column, value) in values.items()}, batch, contract, samples, split)
        return (
            f"{len(values)} of the batch's {total} rows hold a value that is no number: {named}; correct what it is made of, and build "
            "the samples of the day again"
        )
    if not model.is_sharded and (rows := _losses(model, batch)):
        named = _names({row: f"loss is {loss}" for row, loss in rows.items()}, batch, contract, samples, split)
        return (
            f"all values of the batch are numbers, and {len(rows)} of its {total} rows have a loss that is none: {named}; the weights "
            f"have grown too large: {LOWER}"
        )
    return None


def is_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether every entry is a number; takes no memory for it, however large a table is."""
    floats = [tensor for tensor in tensors.values() if tensor.is_floating_point() and tensor.numel()]
    return all(bool(extreme.isfinite()) for tensor in floats for extreme in tensor.aminmax())


def _values(batch: Batch) -> dict[int, tuple[str, float]]:
    """By row, the first column and value that is no number; what stands behind the end of a history is not looked at."""
    found: dict[int, tuple[str, float]] = {}
    for name, column in batch.items():
        if not column.is_floating_point():
            continue
        wrong = ~column.isfinite()
        if column.dim() == 2:
            wrong &= torch.arange(column.shape[1]) < batch[LENGTH_COLUMN][:, None]
        for row, *place in wrong.nonzero().tolist():
            found.setdefault(row, (name, float(column[(row, *place)])))
    return dict(sorted(found.items()))


def _losses(model: ClickModel, batch: Batch) -> dict[int, float]:
    """By row, a loss that is no number."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(on_device(model, batch)).cpu()
        losses = binary_cross_entropy_with_logits(logits, batch[LABEL_COLUMN].float(), reduction="none")
    model.train(was_training)
    return {row: float(losses[row]) for (row,) in (~losses.isfinite()).nonzero().tolist()}


def _names(what: Mapping[int, str], batch: Batch, contract: Contract, samples: str, split: str) -> str:
    parts = []
    for row in list(what)[:SHOWN]:
        user, time = int(batch[USER_COLUMN][row]), int(batch[TIME_COLUMN][row])
        place = next(_places(user, time, contract, samples, split), f"user_key {user} at time {time}")
        parts.append(f"row {row} ({place}): {what[row]}")
    return ", ".join(parts) + (", ..." if len(what) > SHOWN else "")


def _places(user: int, time: int, contract: Contract, samples: str, split: str) -> Iterator[str]:
    """Where the rows of a user and time lie; nothing where the files cannot be read any more."""
    date = dt.datetime.fromtimestamp(time // 1_000_000, ZoneInfo(contract.day_time_zone)).date()
    for file in (file for day in contract.split(split) if day.day == date for file in day.files):
        try:
            with fsspec.open(f"{samples.rstrip('/')}/{file.path}", "rb") as handle:
                table = pq.read_table(handle, columns=[ID_COLUMN, USER_COLUMN, TIME_COLUMN])
        except (OSError, pa.ArrowException):
            continue
        matches = pc.and_(pc.equal(table[USER_COLUMN], user), pc.equal(table[TIME_COLUMN], time))
        for row in pc.indices_nonzero(matches).to_pylist():
            yield f"impression {table[ID_COLUMN][row]}, row {row} of {file.path}"
