"""Samples of Taobao display ads in the layout of the DMR paper (Lyu et al. 2020): impressions that are joined with their behaviors.

Published as ``alimama_sampled.txt`` at https://github.com/lvze92/DMR, made from https://tianchi.aliyun.com/dataset/56, whose terms hold:
non-commercial use.

Layout: 267 values a line, separated by commas, no header. 0 to 49 the behaviors' types, 50 to 99 their categories, 100 to 149 their
brands, the most recent last; 150 to 199 a mask, 0 where there is no behavior (these are in front), 200 to 249 a mask that DMR's
matching loss uses; then one value each of :data:`COLUMNS`.

The lines have no times and the users' other impressions are not behaviors. So each line here is a user of its own, whose id is the
published one with a hash of the line behind it; it was shown at noon of one of ten days, drawn by that hash, and its behaviors lie in
the seconds before. A line that is published more than once falls on one day, and so into one split. A metric by user (gAUC) has no
meaning on this set, as no user has two impressions.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Importer, Log, by_day, with_impression_id
from pipeline.importers.published_files import Delimited, Published

FIRST_DAY = dt.date(2017, 5, 14)
"""The day after the last of the published impressions."""
DAYS = 10
LENGTH = 50

COLUMNS = (
    "uid", "cms_segid", "cms_group_id", "gender", "age_level", "pvalue_level", "shopping_level", "occupation", "city_level",
    "item_id", "category", "campaign", "customer", "brand", "price", "placement", "label",
)  # fmt: skip
_GROUPS = ("btag", "category", "brand", "mask", "match_mask")
_NUMBERS = {"price": "double", "label": "int"}

SAMPLES = Delimited(
    ("*.txt", "*.csv"),
    {
        **{f"{group}_{i}": "string" for group in _GROUPS for i in range(LENGTH)},
        **{name: _NUMBERS.get(name, "string") for name in COLUMNS},
    },
    ("uid", "item_id", "label"),
    header=False,
)


def keyed(samples: DataFrame) -> DataFrame:
    """Give each line its id and its time.

    Args:
        samples: columns of :data:`SAMPLES`.

    Returns:
        The same with ``impression_id``, ``user_id`` (the same) and ``time``.
    """
    line = F.xxhash64(*samples.columns)
    day = F.date_add(F.lit(FIRST_DAY), F.pmod(line, F.lit(DAYS)).cast("int"))
    noon = F.timestamp_seconds(F.unix_date(day) * 86_400 + 43_200)
    rows = samples.withColumns({"line": F.lower(F.hex(line)), "time": noon})
    return with_impression_id(rows, "uid", "line").withColumn("user_id", F.col("impression_id")).drop("line")


def impressions(samples: DataFrame) -> DataFrame:
    """The ads shown: ``impression_id``, ``user_id``, ``time`` and :data:`COLUMNS`.

    Args:
        samples: what :func:`keyed` returns.
    """
    return samples.select("impression_id", "user_id", "time", *COLUMNS)


def behaviors(samples: DataFrame) -> DataFrame:
    """The behaviors, the last of them a second before the impression.

    Args:
        samples: what :func:`keyed` returns.

    Returns:
        Columns ``user_id``, ``item_id`` (``category:brand``), ``time``, ``btag``, ``category``, ``brand``.
    """
    lists = {group: F.array(*[F.col(f"{group}_{i}") for i in range(LENGTH)]) for group in _GROUPS}
    zipped = F.arrays_zip(*[values.alias(group) for group, values in lists.items()])
    rows = samples.select("user_id", F.col("time").alias("shown"), F.posexplode(zipped).alias("position", "behavior"))
    return rows.where(F.col("behavior.mask") == "1").select(
        "user_id",
        F.concat_ws(":", "behavior.category", "behavior.brand").alias("item_id"),
        F.timestamp_seconds(F.unix_seconds("shown") - LENGTH + F.col("position")).alias("time"),
        "behavior.btag",
        "behavior.category",
        "behavior.brand",
    )


def _read(published: Published) -> dict[str, Log]:
    samples = keyed(published.read(SAMPLES, {"the last value is neither 0 nor 1": ~F.col("label").isin(0, 1)}))
    return {"impressions": by_day(impressions(samples)), "behaviors": by_day(behaviors(samples))}


DMR = Importer((SAMPLES,), _read, "https://github.com/lvze92/DMR")
