"""The logs that importers write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipeline.importers.published_files import Published, Table


@dataclass(frozen=True)
class Log:
    """A log, and the columns whose values are folders."""

    frame: DataFrame
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Importer:
    """A published set: its tables, what reads them, where a user gets them."""

    tables: Sequence[Table]
    """All that may be there; a set that was published in two layouts has the tables of both."""
    read: Callable[[Published], dict[str, Log]]
    """Folder below the output -> the log that is written there."""
    home: str
    """The address that a user downloads it from."""


def by_day(frame: DataFrame, *before: str) -> Log:
    """A log with a folder for each day (UTC) of its ``time``, below those of the columns ``before``."""
    return Log(frame.withColumn("day", F.to_date("time")), (*before, "day"))


def with_impression_id(frame: DataFrame, *keys: str) -> DataFrame:
    """Add ``impression_id``: the values of ``keys`` joined by ``-``; where rows share them, ``-2``, ``-3`` ... behind.

    It depends on the rows alone, not on how they lie in files. Of rows that differ in nothing any may be the first.
    """
    same = Window.partitionBy(*keys).orderBy(F.xxhash64(*frame.columns))
    number = F.row_number().over(same)
    return frame.withColumn("impression_id", F.concat_ws("-", *keys, F.when(number > 1, number.cast("string"))))
