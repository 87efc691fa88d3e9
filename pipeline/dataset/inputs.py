"""Which rows each day's samples are made from, so that a change of them is noticed, and nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract.document import fingerprint
from pipeline.config import DataConfig, Source
from pipeline.days import ONE_DAY, Calendar
from pipeline.io.files import FileInfo
from pipeline.io.storage import Storage
from pipeline.logs.reach import impressions_ahead, impressions_back, reach_back
from pipeline.logs.sources import read_source

#: Kinds of tables whose rows can change while their files, if they have any, do not.
_VIEWS = ("VIEW", "TEMPORARY")


@dataclass(frozen=True)
class _Reach:
    """A source, and the days whose samples its rows of a day matter to: from ``ahead`` before that day to ``back`` after it.

    ``back`` is None where a row counts for ever.
    """

    name: str
    source: Source
    back: dt.timedelta | None
    ahead: dt.timedelta
    is_log: bool
    """Whether rows have a ``time``."""

    def concerns(self, rows_day: dt.date, day: dt.date, late: dt.timedelta) -> bool:
        """Whether rows of a day, or up to ``late`` before it, matter to the samples of another."""
        return rows_day <= day + self.ahead + late and (self.back is None or rows_day >= day - self.back)


@dataclass(frozen=True)
class Inputs:
    """What the samples of some days are made from.

    ``fingerprints``: of the rows of each day. ``days``: for each day, by source the days whose files it needs and that are there;
    ``there``: all days of a source that have files. Both are of sources whose files lie in folders of days.
    """

    fingerprints: Mapping[dt.date, str]
    days: Mapping[dt.date, Mapping[str, frozenset[dt.date]]]
    there: Mapping[str, frozenset[dt.date]]


def find_inputs(spark: SparkSession, config: DataConfig, days: Iterable[dt.date]) -> Inputs:
    """Look at the rows that each day's samples are made from.

    A log whose files lie in folders of days (``day_column``), and a table of attributes, is known by its files: path, size and time
    of change. The rows of any other log, of a view, and of a table without files, are read, and each day of them has a checksum.

    Raises:
        LogError: a table cannot be read.
    """
    wanted = list(days)
    if not wanted:
        return Inputs({}, {}, {})
    first = min(split.first for split in config.splits.values())
    parts: list[dict[dt.date, Any]] = []
    needed: dict[dt.date, dict[str, frozenset[dt.date]]] = {day: {} for day in wanted}
    there: dict[str, frozenset[dt.date]] = {}
    for reach in _reaches(config):
        files = _files(spark, reach.source)
        if files is None or (reach.is_log and reach.source.day_column is None):
            parts.append(_rows_of(spark, config, reach, wanted, first))
            continue
        dated = [((info.path, info.size, info.modified), _day_of(info.path, reach.source.day_column)) for info in files]
        late = reach.source.late_days * ONE_DAY
        day_files = {day: [(file, d) for file, d in dated if d is None or reach.concerns(d, day, late)] for day in wanted}
        parts.append({day: [file for file, _ in files_of_day] for day, files_of_day in day_files.items()})
        if reach.source.day_column is not None:
            there[reach.name] = frozenset(d for _, d in dated if d is not None)
            for day, files_of_day in day_files.items():
                needed[day][reach.name] = frozenset(d for _, d in files_of_day if d is not None)
    return Inputs({day: fingerprint([part[day] for part in parts]) for day in wanted}, needed, there)


def _reaches(config: DataConfig) -> list[_Reach]:
    log, back, none = config.log, reach_back(config), dt.timedelta(0)
    from_impressions = log.clicks is None and not log.has_behaviors
    shown_back = back if from_impressions or log.kind == "positives_only" else impressions_back(config)
    reaches = [_Reach("log.impressions", log.impressions, shown_back, impressions_ahead(config), is_log=True)]
    if log.clicks is not None:
        ahead = log.attribution + ONE_DAY
        reaches.append(_Reach("log.clicks", log.clicks, none if log.has_behaviors else back, ahead, is_log=True))
    for action, source in log.behaviors.items():
        reaches.append(_Reach(f"log.behaviors.{action}", source, back, none, is_log=True))
    if config.users is not None:
        reaches.append(_Reach("users", config.users, config.users.reach, none, is_log=False))
    if config.items is not None:
        reach = config.items.reach + back if config.items.reach is not None else None
        reaches.append(_Reach("items", config.items, reach, none, is_log=False))
    reaches += [_Reach(f"lookups.{i}", source, None, none, is_log=False) for i, source in enumerate(config.lookups)]
    return reaches


def _rows_of(
    spark: SparkSession, config: DataConfig, reach: _Reach, days: Sequence[dt.date], first: dt.date
) -> dict[dt.date, Any]:
    """What the rows of a source are to the samples of each day; those without a day are quarantined with the first one of all splits."""
    sums = _checksums(spark, config.calendar, reach, days)
    if not reach.is_log:
        return {day: list(sums.values()) for day in days}
    return {day: [(str(d), v) for d, v in sums.items() if reach.concerns(d or first, day, dt.timedelta(0))] for day in days}


def _files(spark: SparkSession, source: Source) -> list[FileInfo] | None:
    """The files of a source; None where they do not say what its rows are."""
    storage = Storage(spark)
    if source.path is not None:
        return [info for path in storage.glob(source.path) for info in storage.files(path)]
    try:
        if spark.catalog.getTable(str(source.table)).tableType in _VIEWS:
            return None
        infos = [storage.info(unquote(path)) for path in sorted(spark.read.table(str(source.table)).inputFiles())]
    except AnalysisException:  # told with the table's place where it is read
        return None
    return [info for info in infos if info is not None] or None


def _day_of(path: str, column: str | None) -> dt.date | None:
    """The day of the partition that a file lies in; None where it is in none, or in one of no date."""
    if column is None:
        return None
    values = [unquote(part.partition("=")[2]) for part in path.split("/")[:-1] if part.startswith(f"{column}=")]
    try:
        return dt.date.fromisoformat(values[-1][:10]) if values else None
    except ValueError:
        return None


def _checksums(spark: SparkSession, calendar: Calendar, reach: _Reach, days: Sequence[dt.date]) -> Mapping[dt.date | None, str]:
    """Of the rows of each day that matters, in whatever order they come; of a table of attributes one for all rows."""
    begin = min(days) - (reach.back or dt.timedelta(0)) - ONE_DAY
    end = max(days) + reach.ahead + (reach.source.late_days + 1) * ONE_DAY
    frame = read_source(spark, reach.name, reach.source, days=(begin, end) if reach.is_log else None)
    day = F.date_from_unix_date(F.expr(calendar.number_sql("time"))) if reach.is_log else F.lit(None).cast("date")
    hashed = F.xxhash64(*[_hashable(frame, name) for name in frame.columns]).cast("decimal(20,0)")
    rows = frame.groupBy(day.alias("day")).agg(F.count("*").alias("rows"), F.sum(hashed).alias("sum")).collect()
    return {row["day"]: f"{row['rows']} rows {row['sum']}" for row in sorted(rows, key=lambda row: str(row["day"]))}


def _hashable(frame: DataFrame, name: str) -> Column:
    kind = frame.schema[name].dataType.simpleString()
    return F.to_json(F.struct(f"`{name}`")) if "map<" in kind or "variant" in kind else F.col(f"`{name}`")
