"""Labels: which impressions were clicked."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def distinct_impressions(impressions: DataFrame) -> DataFrame:
    """One row for each impression of a day: of rows with one ``impression_id`` the first in time, then the least, is kept.

    Days are taken apart (column ``day``), so that a day's rows do not depend on which other days are built with it.
    """
    rest = [c for c in impressions.columns if c not in ("day", "impression_id")]
    first = F.min(F.struct("time", *[c for c in rest if c != "time"])).alias("first")
    kept = impressions.groupBy("day", "impression_id").agg(first)
    return kept.select("day", "impression_id", *[F.col("first")[c].alias(c) for c in rest])


def attribute_clicks(impressions: DataFrame, clicks: DataFrame, window: dt.timedelta) -> DataFrame:
    """Add ``label``: 1 where a click of the same ``impression_id`` came at the impression's time or less than ``window`` after it.

    Args:
        impressions: columns ``impression_id``, ``time`` and any others.
        clicks: columns ``impression_id``, ``time``; any number of rows an impression, also of unknown impressions.
        window: the attribution window.

    Returns:
        The impressions, each once, with ``label`` (int).
    """
    times = clicks.groupBy("impression_id").agg(F.collect_set("time").alias("click_times"))
    end = F.col("time") + F.expr(f"INTERVAL {round(window.total_seconds() * 1_000_000)} MICROSECONDS")
    clicked = F.exists("click_times", lambda t: (t >= F.col("time")) & (t < end))
    labeled = impressions.join(times, "impression_id", "left")
    return labeled.withColumn("label", F.coalesce(clicked, F.lit(False)).cast("int")).drop("click_times")
