"""What a sample says by lacking something: values that are missing or unknown, and the length of its history.

And by repeating something, where the log recorded the history: one that is written down with the click has the candidate in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from mian.contract import UNKNOWN_ID, Contract
from mian.contract.document import LENGTH_COLUMN
from pipeline.audit.published_samples import Published
from pipeline.config import DataConfig

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: About so many rows are looked at: those of users that the hash of their key draws.
MOST_ROWS = 1_000_000

#: Levels of a column of behaviors: how many of its entries are unknown.
NONE, SOME, HALF = 0, 1, 2

#: Levels of a candidate's value beside the behaviors of a recorded history.
ELSEWHERE, AMONG, NEWEST = 0, 1, 2
_BESIDE = "{} among {}"


@dataclass(frozen=True)
class Indicator:
    """Something that is on or off in each row.

    ``column``: whose. ``words``: what it says where it is on. ``on``: shape ``(N,)``. ``in_history``: it is of the behaviors.
    ``per_user``: it is the same in all rows of a user at a time.
    """

    column: str
    words: str
    on: BoolArray
    in_history: bool = False
    per_user: bool = False


@dataclass(frozen=True)
class IndicatorRows:
    """Rows of the training days and the held-out ones, and what they lack.

    ``drawn``: whether negatives were drawn. ``labels``, ``users`` and ``days`` (numbers from 0 on), ``weights`` (what a row counts: more
    than 1 where negatives were thinned), ``held_out`` and each indicator: shape ``(N,)``.
    """

    labels: FloatArray
    users: IntArray
    days: IntArray
    weights: FloatArray
    held_out: BoolArray
    indicators: tuple[Indicator, ...]
    drawn: bool = False


def collect_indicators(published: Published, config: DataConfig) -> IndicatorRows:
    """Collect the rows of all splits, or of some users where there are many."""
    held_out = {str(day.day): day.day not in config.splits["train"] for day in published.contract.days}
    wanted = [str(day.day) for day in published.contract.days if any(day.day in split for split in config.splits.values())]
    kept = {str(day.day): day.negatives_kept for day in published.contract.days}
    samples = published.samples.where(F.col("day").cast("string").isin(wanted))
    total = sum(day.rows for day in published.contract.days if str(day.day) in wanted)
    if total > MOST_ROWS:
        samples = samples.where(F.pmod(F.xxhash64("user_key", F.lit(1)), F.lit(1 << 20)) < int(MOST_ROWS / total * (1 << 20)))
    levels = {column: level.cast("tinyint").alias(column) for column, level in _levels(published, config)}
    table = samples.select("user_key", F.col("day").cast("string").alias("day"), "label", *levels.values()).toArrow()
    names = table["day"].to_pylist()
    labels = table["label"].to_numpy().astype(np.float64)
    shares = np.array([kept[name] for name in names], np.float64)
    return IndicatorRows(
        labels=labels,
        users=np.unique(table["user_key"].to_numpy(), return_inverse=True)[1].reshape(-1).astype(np.int64),
        days=np.unique(np.array(names, object).astype(str), return_inverse=True)[1].reshape(-1).astype(np.int64),
        weights=np.where(labels == 1, 1.0, 1.0 / shares),
        held_out=np.array([held_out[name] for name in names], np.bool_),
        indicators=tuple(_indicators(published, table)),
        drawn=config.log.kind == "positives_only",
    )


def _levels(published: Published, config: DataConfig) -> Iterator[tuple[str, Column]]:
    contract = published.contract
    if config.recorded:
        for candidate, behaviors in _pairs(contract):
            known = F.col(candidate) > UNKNOWN_ID
            newest = F.expr(f"`{behaviors}`[0] = `{candidate}`")
            among = F.expr(f"array_contains(slice(`{behaviors}`, 1, {LENGTH_COLUMN}), `{candidate}`)")
            level = F.when(known & newest, NEWEST).when(known & among, AMONG).otherwise(ELSEWHERE)
            yield _BESIDE.format(candidate, behaviors), level
    length = F.col(LENGTH_COLUMN)
    yield LENGTH_COLUMN, F.when(length == contract.history.length, -1).otherwise(F.floor(F.log2(length + 1)))
    for field in contract.fields:
        column = F.col(field.column)
        lacking = UNKNOWN_ID if field.is_categorical else 0  # a missing number is the mean, which is 0
        if field.group != "behaviors":
            yield field.column, column == lacking
        elif field.kind != "time_gap":
            count = F.expr(f"size(filter(slice(`{field.column}`, 1, {LENGTH_COLUMN}), value -> value = {lacking}))")
            yield field.column, F.when(count == 0, NONE).when(2 * count < length, SOME).otherwise(HALF)


def _pairs(contract: Contract) -> Iterator[tuple[str, str]]:
    """The candidate's columns and those of behaviors that have the same values."""
    for candidate in contract.fields:
        for behaviors in contract.fields:
            groups = (candidate.group, behaviors.group) == ("candidate", "behaviors")
            if groups and candidate.is_categorical and candidate.vocabulary == behaviors.vocabulary:
                yield candidate.column, behaviors.column


def _indicators(published: Published, table: pa.Table) -> Iterator[Indicator]:
    contract = published.contract
    for candidate, behaviors in _pairs(contract):
        if (name := _BESIDE.format(candidate, behaviors)) in table.column_names:
            levels = table[name].to_numpy()
            yield Indicator(candidate, f"the most recent of {behaviors}", levels == NEWEST)
            yield Indicator(candidate, f"one of {behaviors}", levels >= AMONG)
    lengths = table[LENGTH_COLUMN].to_numpy()
    for level in np.unique(lengths):
        yield Indicator(LENGTH_COLUMN, _length(int(level)), lengths == level, in_history=True)
    for field in contract.fields:
        if field.column not in table.column_names:
            continue
        levels = table[field.column].to_numpy()
        if field.group != "behaviors":
            yield Indicator(field.column, "unknown or missing", levels == 1, per_user=field.group == "user")
            continue
        yield Indicator(field.column, "unknown in some behaviors", levels == SOME, in_history=True)
        yield Indicator(field.column, "unknown in half of the behaviors or more", levels == HALF, in_history=True)


def _length(level: int) -> str:
    if level < 0:
        return "a full history"
    return "an empty history" if level == 0 else f"a history of {2**level - 1} to {2 ** (level + 1) - 2} behaviors"
