"""From the logs, whatever their kind, to two tables: impressions with labels, and behaviors."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import DataConfig, Source
from pipeline.labels import attribute_clicks, distinct_impressions
from pipeline.logs import EVENT_COLUMNS, check_events, read_source
from pipeline.negatives import POOL_DAYS, draw_negatives

ONE_DAY = dt.timedelta(days=1)


def days_between(first: dt.date, last: dt.date) -> list[dt.date]:
    """All days from the first to the last, both included."""
    return [first + i * ONE_DAY for i in range((last - first).days + 1)]


@dataclass(frozen=True)
class Events:
    """What happened on a range of days.

    ``impressions``: columns ``day``, ``impression_id``, ``user_id``, ``item_id``, ``time``, ``label`` and the log's others; each
    impression of a day once. ``behaviors``: columns ``impression_id``, ``user_id``, ``item_id``, ``time`` and others, from the
    history's window before the first day on; each once. ``counts``: rows of the log a day, before duplicates are left out.
    """

    impressions: DataFrame
    behaviors: DataFrame
    counts: dict[dt.date, int]


def read_events(spark: SparkSession, config: DataConfig, first: dt.date, last: dt.date) -> Events:
    """Read and check the events that the samples of ``first`` to ``last`` are made of.

    Raises:
        LogError: a log cannot be used, or a day has no impressions.
    """
    days = [day for day in days_between(first, last) if day not in config.log.empty_days]
    history = dt.timedelta(days=config.history.days)
    if config.log.kind == "impressions_and_clicks":
        assert config.log.clicks is not None
        impressions = _read(spark, "log.impressions", config.log.impressions, first, last)
        counts = check_events(impressions, "log.impressions", _span(first, last), days=days)
        clicks_from, clicks_to = first - history, last + config.attribution + ONE_DAY
        clicks = _read(spark, "log.clicks", config.log.clicks, clicks_from, clicks_to)
        check_events(clicks, "log.clicks", _span(clicks_from, clicks_to))
        labeled = attribute_clicks(distinct_impressions(_with_day(impressions)), clicks, config.attribution)
        # a click after the last day may be a label, but is no behavior of these days, nor a word of their vocabularies
        past = clicks.where(F.col("time") < _midnight(last + ONE_DAY))
        return Events(labeled, _distinct_behaviors(past), counts)

    back = history if config.log.kind == "labeled" else max(history, (POOL_DAYS - 1) * ONE_DAY)
    log = _read(spark, "log.impressions", config.log.impressions, first - back, last)
    counts = check_events(log, "log.impressions", _span(first - back, last), days=days, label=config.log.kind == "labeled")
    counts = {day: count for day, count in counts.items() if day >= first}
    log = distinct_impressions(_with_day(log))
    asked = log.where(F.col("day") >= F.lit(first))
    if config.log.kind == "labeled":
        clicked = log.where("int(label) = 1").drop("day", "label")
        return Events(asked.withColumn("label", F.col("label").cast("int")), clicked, counts)
    assert config.log.negatives is not None
    behaviors = log.drop("day")
    drawn = draw_negatives(asked, behaviors, config.log.negatives, history, config.seed)
    per_positive = 1 + config.log.negatives.uniform + config.log.negatives.popularity
    return Events(drawn, behaviors, {day: count * per_positive for day, count in counts.items()})


def _read(spark: SparkSession, name: str, source: Source, first: dt.date, last: dt.date) -> DataFrame:
    frame = read_source(spark, name, source, days=(first, last))
    if frame.schema["time"].dataType.typeName() != "timestamp":
        return frame  # check_events says so
    begin, end = _midnight(first), _midnight(last + ONE_DAY)
    # rows without a time, or with an impossible one, stay in: check_events refuses them
    plausible = F.year("time").between(1990, 2100)
    return frame.where(F.col("time").isNull() | ~plausible | ((F.col("time") >= begin) & (F.col("time") < end)))


def _midnight(day: dt.date) -> Column:
    return F.lit(str(day)).cast("timestamp")


def _span(first: dt.date, last: dt.date) -> str:
    return f"between {first} and {last}"


def _with_day(frame: DataFrame) -> DataFrame:
    return frame.withColumn("day", F.to_date("time"))


def _distinct_behaviors(clicks: DataFrame) -> DataFrame:
    """One row for each click: a row delivered twice is one click."""
    rest = [c for c in clicks.columns if c not in EVENT_COLUMNS]
    if not rest:
        return clicks.distinct()
    kept = clicks.groupBy(*EVENT_COLUMNS).agg(F.min(F.struct(*rest)).alias("kept"))
    return kept.select(*EVENT_COLUMNS, *[F.col("kept")[c].alias(c) for c in rest])
