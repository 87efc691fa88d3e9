"""One row of a split as an example: its raw values, and what the model looked at."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mian.contract import UNKNOWN_ID, Contract, decode_row
from mian.contract.document import LENGTH_COLUMN, TIME_COLUMN
from mian.evaluation.offline import SplitEvaluation
from mian.evaluation.split_columns import read_column
from mian.serving import Servable, explain_sample
from mian.stream.schema import Tensors, columns_of


@dataclass(frozen=True)
class ExampleRow:
    """A row of the samples as the model reads it.

    Attributes:
        impression_id: Which impression it is.
        time: When that was, in UTC.
        probability: Of a click, by the model.
        behaviors: How many the history has.
        values: Raw values by column, see :func:`mian.contract.decode_row`.
        attention: A table of :func:`mian.serving.explain_sample`; empty where the model has no attention.
    """

    impression_id: str
    time: dt.datetime
    probability: float
    behaviors: int
    values: dict[str, Any]
    attention: pd.DataFrame


def example_row(servable: Servable, evaluation: SplitEvaluation) -> ExampleRow | None:
    """The clicked row with a full history that the model gives the highest probability; None where no row was clicked.

    Where no clicked row has a full history, it is one of those with the longest.

    Args:
        servable: The model.
        evaluation: What it made of a split.
    """
    contract, samples, split = evaluation.contract, evaluation.samples, evaluation.split
    lengths = read_column(contract, samples, split, LENGTH_COLUMN, pa.int32()).to_numpy()
    number = choose_row(evaluation.scored.labels, evaluation.scored.probabilities, lengths)
    if number is None:
        return None
    row = read_row(contract, samples, split, number)
    sample = _as_the_model_reads(servable, contract, row)
    values = decode_row(servable.contract, servable.vocabularies, {name: column[0].tolist() for name, column in sample.items()})
    return ExampleRow(
        impression_id=str(evaluation.ids[number]),
        time=dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=row[TIME_COLUMN]),
        probability=float(evaluation.scored.probabilities[number]),
        behaviors=int(lengths[number]),
        values=values,
        attention=explain_sample(servable, sample, values),
    )


def choose_row(
    labels: npt.NDArray[np.int32], probabilities: npt.NDArray[np.float32], lengths: npt.NDArray[np.int32]
) -> int | None:
    """The number of the row that :func:`example_row` shows; of several the first.

    Args:
        labels: Shape ``(N,)``, 0 or 1.
        probabilities: Shape ``(N,)``, of label 1.
        lengths: Shape ``(N,)``, of the histories.
    """
    clicked = np.flatnonzero(labels == 1)
    if not len(clicked):
        return None
    longest = clicked[lengths[clicked] == lengths[clicked].max()]
    return int(longest[np.argmax(probabilities[longest])])


def read_row(contract: Contract, samples: str, split: str, number: int) -> dict[str, Any]:
    """A row of a split by its number in the order of the contract's files: all columns, encoded as they are.

    Raises:
        IndexError: The split has fewer rows.
    """
    for file in (file for day in contract.split(split) for file in day.files):
        if number < file.rows:
            with fsspec.open(f"{samples.rstrip('/')}/{file.path}", "rb") as handle:
                (row,) = pq.read_table(handle).slice(number, 1).to_pylist()
            found: dict[str, Any] = row
            return found
        number -= file.rows
    raise IndexError(f"split {split!r} of {samples} ends {number + 1} rows before")


def _as_the_model_reads(servable: Servable, contract: Contract, row: dict[str, Any]) -> Tensors:
    """A batch of the row; ids that the samples' vocabularies got since the model was trained are unknown, as they are when it scores."""
    sample = {column.name: torch.tensor([row[column.name]], dtype=column.dtype) for column in columns_of(contract)}
    for field in servable.contract.fields:
        if field.vocabulary is not None:
            ids = sample[field.column]
            sample[field.column] = ids.masked_fill(ids >= servable.contract.vocabulary(field.vocabulary).size, UNKNOWN_ID)
    return sample
