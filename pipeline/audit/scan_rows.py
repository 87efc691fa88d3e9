"""All samples beside all impressions and clicks: is there such an impression, is its label what the clicks say, is its time of its day?"""

from __future__ import annotations

from collections.abc import Iterator

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.audit.findings import SHOWN, Finding
from pipeline.audit.known import first_delivery
from pipeline.audit.published_samples import Published
from pipeline.audit.recompute import attribution
from pipeline.audit.tables import MICROS, USER_KEY, Tables
from pipeline.config import DataConfig
from pipeline.logs.rules import DAY

_KEYS = ["_user", "_id", "_time"]


def scan_rows(published: Published, tables: Tables, config: DataConfig) -> Iterator[Finding]:
    """Look at every sample's place in the log, its time, its label and the shape of its lists."""
    judged = _judged(published, tables, config)
    found = judged.select("day", "impression_id", F.explode(_problems(published, config)).alias("_problem"))
    problems = found.select("day", "impression_id", "_problem.*")
    totals = {(row["kind"], str(row["day"])): row["count"] for row in problems.groupBy("kind", "day").count().collect()}
    if not totals:
        return
    some = Window.partitionBy("kind").orderBy("day", "impression_id")
    deliveries = problems.withColumn("_n", F.row_number().over(some)).where(F.col("_n") <= SHOWN).orderBy("kind", "_n").collect()
    for row in deliveries:
        yield Finding(row["kind"], row["samples"], row["logs"], str(row["day"]), row["impression_id"], row["column"])
        totals[row["kind"], str(row["day"])] -= 1
    yield from (Finding(kind, "", "", day, count=left) for (kind, day), left in totals.items() if left)


def _judged(published: Published, tables: Tables, config: DataConfig) -> DataFrame:
    """Each sample with ``_there``, ``_clicked``, ``_first_click`` and, of a labeled log, ``_wanted``: its label."""
    negative = F.lit(config.log.kind == "positives_only") & (F.col("label") == 0)
    # a drawn negative has the id of its positive with #1, #2 ... behind it
    base = F.when(negative, F.regexp_replace("impression_id", r"#\d+$", "")).otherwise(F.col("impression_id"))
    drawn = negative & (base == F.col("impression_id"))
    samples = published.samples.withColumns({"_user": F.col("user_key"), "_id": F.when(~drawn, base), "_time": F.col("time")})
    log = tables.impressions.select(
        F.col(USER_KEY).alias("_user"),
        F.col("impression_id").alias("_id"),
        F.col(MICROS).alias("_time"),
        DAY,
        F.col("item_id").alias("_item"),
        *([F.col("label").alias("_label")] if config.log.kind == "labeled" else []),
    )
    flags = [F.lit(True).alias("_there")]
    if config.log.kind == "labeled":
        # of several deliveries of an impression any may bring the label 1
        log = log.withColumn("_label", F.max("_label").over(Window.partitionBy("_user", "_id", DAY)))
        flags.append(F.max("_label").alias("_wanted"))
    judged = samples.join(log.groupBy(*_KEYS).agg(*flags), _KEYS, "left")
    if tables.clicks is not None:
        judged = judged.join(_clicked(tables.clicks, log, config), _KEYS, "left")
    return judged


def _clicked(clicks: DataFrame, log: DataFrame, config: DataConfig) -> DataFrame:
    """The impressions that clicks belong to by the rule: ``_clicked``; and the first click of their id, ``_first_click``."""
    deliveries = first_delivery(log, ["_user", "_id", DAY], ["_time", "_item"])
    by_id = config.log.attribution_by == "impression_id"
    clicks = clicks.select(
        F.col(USER_KEY).alias("_user"),
        F.col(MICROS).alias("_at"),
        *([F.col("impression_id").alias("_id")] if by_id else [F.col("item_id").alias("_item")]),
    ).distinct()
    inside = (F.col("_at") >= F.col("_time")) & (F.col("_at") < F.col("_time") + attribution(config.log))
    key = "_id" if by_id else "_item"
    together = clicks.join(deliveries, ["_user", key])
    # of the impressions that a click could belong to it belongs to the latest
    latest = together.where(inside).groupBy("_user", key, "_at").agg(F.max(F.struct("_time", "_id")).alias("_s"))
    winners = latest.select("_user", F.col("_s._id").alias("_id"), F.col("_s._time").alias("_time"), "_at")
    clicked = winners.groupBy(*_KEYS).agg(F.lit(True).alias("_clicked"), F.min("_at").alias("_first_click"))
    if not by_id:
        return clicked
    # a click of the id outside of the window is worth a word
    first = together.groupBy(*_KEYS).agg(F.min("_at").alias("_first_click"))
    return first.join(clicked.drop("_first_click"), _KEYS, "left")


def _problems(published: Published, config: DataConfig) -> Column:
    log, is_found = config.log, F.col("_there").isNotNull()
    if log.kind == "impressions_and_clicks":
        clicked = F.coalesce(F.col("_clicked"), F.lit(False))
        first = F.coalesce(
            F.concat(F.lit("; a click of it came at "), F.timestamp_micros("_first_click").cast("string")), F.lit("")
        )
        window = f"click of it within {log.attribution_hours:g} h after it, at "
        words = F.concat(F.when(clicked, "a ").otherwise("no "), F.lit(window), F.timestamp_micros("time").cast("string"), first)
        wrong = F.col("label") != clicked.cast("int")
    elif log.kind == "labeled":
        wrong = F.col("label") != F.col("_wanted")
        words = F.concat(F.lit("label "), F.col("_wanted").cast("string"))
    else:
        wrong, words = ~F.col("label").isin(0, 1), F.lit("label 0 or 1")
    length = published.contract.history.length
    lists = [field.column for field in published.contract.group("behaviors")]
    crooked = F.lit(False)
    for column in lists:
        crooked = crooked | (F.size(column) != length)
    time = F.timestamp_micros("time")
    cases = [
        (~is_found, "impression", "", F.lit("such a sample"), F.lit("no impression of that id, user and time")),
        (is_found & wrong, "label", "label", F.col("label").cast("string"), words),
        (
            F.to_date(F.from_utc_timestamp(time, config.day_time_zone)) != F.col("day"),
            "time",
            "time",
            time.cast("string"),
            F.lit("a time of its day"),
        ),
        (crooked, "history", "", F.lit("behavior lists of another length"), F.lit(f"lists of {length}")),
    ]
    made = [
        F.when(
            F.coalesce(condition, F.lit(False)),
            F.struct(F.lit(kind).alias("kind"), F.lit(column).alias("column"), held.alias("samples"), said.alias("logs")),
        )
        for condition, kind, column, held, said in cases
    ]
    return F.array_compact(F.array(*made))
