"""The logs as the auditor reads them: the rows that break no rule, and nothing joined."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract import Contract
from pipeline.config import AttributeSource, DataConfig, Source
from pipeline.logs.ids import text_of
from pipeline.logs.rules import DAY, REASON, mark
from pipeline.logs.sources import CORRUPT, LIST_FAULT, PARTITION_DAY, read_source

ONE_DAY = dt.timedelta(days=1)
DAY_MICROS = 86_400_000_000
HOUR_MICROS = 3_600_000_000

#: The hash of the user's id that samples have, and a row's time in microseconds since 1970.
USER_KEY, MICROS = "_user_key", "_micros"
#: Rows of behaviors that agree in this, in user, item, action and impression are one event.
ONCE = "_once"


@dataclass(frozen=True)
class Tables:
    """The logs, all with :data:`USER_KEY` and :data:`MICROS` where they have a user and a time.

    ``impressions`` has :data:`pipeline.logs.rules.DAY`, and ``label`` as int where the log is labeled. ``behaviors`` has ``action``,
    ``impression_id`` (null where it is not known), ``_seen`` (when it had happened and arrived) and :data:`ONCE`. Rows may be there
    twice. ``users`` and ``items`` have ``_from``, ``_arrived`` and ``_to`` in microseconds, null where the table does not say.
    """

    impressions: DataFrame
    clicks: DataFrame | None
    behaviors: DataFrame
    users: DataFrame | None
    items: DataFrame | None
    lookups: tuple[DataFrame, ...]


def read_tables(spark: SparkSession, config: DataConfig, contract: Contract) -> Tables:
    """Read all that the samples of a contract can depend on, and the clicks that came after it.

    Impressions still have the lists of their recorded histories, see :func:`pipeline.audit.recorded.with_recorded`.

    Raises:
        LogError: a log cannot be read.
    """
    log = config.log
    days = [day.day for day in contract.days]
    days += [day for span in contract.vocabulary_days for day in (span.first, span.last)]
    # two days more than whole days of 24 hours would need: some days are shorter
    back = math.ceil(config.history.reach / ONE_DAY) + 2
    if log.negatives is not None:
        back = max(back, math.ceil(log.negatives.window_hours / 24) + 2)
    first, last = min(days) - back * ONE_DAY, max(days) + (math.ceil(log.attribution / ONE_DAY) + 2) * ONE_DAY

    def events(name: str, source: Source) -> DataFrame:
        marked = mark(read_source(spark, name, source, days=(first, last)), source, config.quality, config.calendar)
        good = marked.where(F.col(REASON).isNull() & F.col(DAY).between(F.lit(first), F.lit(last)))
        good = good.drop(*[c for c in (REASON, CORRUPT, PARTITION_DAY, LIST_FAULT) if c in good.columns])
        return good.withColumns({USER_KEY: F.xxhash64("user_id"), MICROS: F.unix_micros("time")})

    impressions = events("log.impressions", log.impression_source)
    if log.kind == "labeled":
        impressions = impressions.withColumn("label", is_one(F.col("label")).cast("int"))
    clicks = events("log.clicks", log.clicks).drop(DAY) if log.clicks is not None else None
    if log.behaviors:
        actions = {action: events(f"log.behaviors.{action}", source).drop(DAY) for action, source in log.behaviors.items()}
    elif clicks is not None:
        actions = {"click": clicks}
    elif log.kind == "labeled":
        actions = {"click": _when_known(impressions.where("label = 1").drop("label"), config)}
    else:
        actions = {"click": impressions}
    return Tables(
        impressions.drop("label_time"),
        clicks,
        _together(actions),
        _known(spark, "users", config.users),
        _known(spark, "items", config.items),
        tuple(_said(read_source(spark, f"lookups.{i}", lookup)) for i, lookup in enumerate(config.lookups)),
    )


def _when_known(positives: DataFrame, config: DataConfig) -> DataFrame:
    """The positives of a labeled log, arrived when their labels were known."""
    known = F.col("label_time") if "label_time" in positives.columns else F.col("time")
    if config.log.label_delay_hours:
        seconds = config.log.label_delay_hours * 3_600
        known = F.timestamp_micros(F.col(MICROS) + F.lit(round(seconds * 1_000_000)))
    arrived = [F.col("arrived")] if "arrived" in positives.columns else []
    return positives.withColumn("arrived", F.greatest(known, F.col("time"), *arrived)).drop("label_time")


def is_one(label: Column) -> Column:
    """Whether a label is 1; the rule has it that it is 0 or 1, as a number, a boolean or a text."""
    return label.cast("string").isin("1", "1.0", "true")


def _together(actions: dict[str, DataFrame]) -> DataFrame:
    frames = []
    for action, frame in actions.items():
        # an impression is delivered once a day, whatever time a second delivery says; a click or a purchase is a moment
        once = F.unix_micros(F.col(DAY).cast("timestamp")) if DAY in frame.columns else F.col(MICROS)
        seen = F.greatest(MICROS, F.unix_micros("arrived")) if "arrived" in frame.columns else F.col(MICROS)
        frame = frame.withColumns({ONCE: once, "_seen": seen}).drop(DAY)
        own = text_of(F.col("action"), frame.schema["action"].dataType) if "action" in frame.columns else F.lit(action)
        frames.append(frame.withColumn("action", own))
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame, allowMissingColumns=True)
    return union if "impression_id" in union.columns else union.withColumn("impression_id", F.lit(None).cast("string"))


def _said(table: DataFrame) -> DataFrame:
    """The rows of a table that can be read: not lines that are broken, nor lists or elements that are null."""
    for fault in (CORRUPT, LIST_FAULT):
        if fault in table.columns:
            table = table.where(F.col(fault).isNull())
    return table.drop(CORRUPT, LIST_FAULT)


def _known(spark: SparkSession, name: str, source: AttributeSource | None) -> DataFrame | None:
    if source is None:
        return None
    frame = _said(read_source(spark, name, source))
    key = "user_id" if name == "users" else "item_id"
    usable = F.col(key).isNotNull()
    moments = {}
    for column, short in (("valid_from", "_from"), ("arrived", "_arrived"), ("valid_to", "_to")):
        has_column = column in source.columns
        moments[short] = F.unix_micros(column) if has_column else F.lit(None).cast("long")
        if has_column and column != "valid_to":  # years outside are a wrong unit; such rows say nothing
            usable = usable & F.col(column).isNotNull() & F.year(column).between(1990, 2100)
    frame = frame.where(usable).select(*source.columns).withColumns(moments)
    return frame.withColumn(USER_KEY, F.xxhash64(key)) if name == "users" else frame
