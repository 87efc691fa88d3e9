"""Amazon reviews of 2014, "5-core": every user and every item has at least five. The public sets of the paper (section 4.1.1).

Published at https://jmcauley.ucsd.edu/data/amazon/ (files at https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/). The
page asks to cite McAuley et al. 2015 and He and McAuley 2016; it names no license that we know of, and the reviews are Amazon's and
its customers': for research.

Layout: ``reviews_<Category>_5.json.gz``, one JSON object a line, ``unixReviewTime`` being midnight UTC of the day; and
``meta_<Category>.json.gz``, one Python dictionary a line (single quotes: no JSON), ``categories`` being a list of paths.

The protocol, the paper's: the first T - 1 reviews of a user are the history, the T-th is the sample, and one item that the user never
reviewed is the negative. It has no calendar, but samples here are built by day. So each user's clock is moved by whole days until the
last review falls on one of ten days, drawn by a hash of the user: that splits the set by users, as DIEN's public data are, and
the gaps between one user's reviews stay as they were. Reviews of one day are ordered by item id, as they are in the files, and lie
a second apart; so every behavior is before its sample. The negative is drawn by a hash of the user, each item with the same chance.

The category of an item is the last element of the last path, as in DIN's public code; this gives the 801 categories of Table 1.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Importer, Log, by_day
from pipeline.importers.published_files import JsonLines, Published
from pipeline.importers.python_lines import PythonLines

FIRST_DAY = dt.date(2014, 8, 1)
"""The day after the month in which the last reviews were written."""
DAYS = 10
"""A tenth of the users has its samples on each."""

REVIEWS = JsonLines(
    ("reviews_*.json",),
    {"reviewerID": "string", "asin": "string", "overall": "double", "unixReviewTime": "bigint"},
    ("reviewerID", "asin", "unixReviewTime"),
)
METADATA = PythonLines(
    ("meta_*.json",),
    {"asin": "string", "categories": "array<array<string>>", "brand": "string", "price": "double"},
    ("asin",),
)


def sequences(reviews: DataFrame) -> DataFrame:
    """The reviews of each user in order, on the user's moved clock.

    Args:
        reviews: columns of :data:`REVIEWS`.

    Returns:
        Columns ``user_id``, ``item_id``, ``rating``, ``date`` (the true one), ``number`` (1 to T), ``length`` (T), ``time`` (moved),
        ``earlier_rating`` (the mean of the ratings before this one, null for the first).
    """
    date = F.to_date(F.timestamp_seconds("unixReviewTime"))
    rows = reviews.select(
        F.col("reviewerID").alias("user_id"), F.col("asin").alias("item_id"), F.col("overall").alias("rating"), date.alias("date")
    )
    order = Window.partitionBy("user_id").orderBy("date", "item_id", "rating")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    all_of_user, day_of_user = Window.partitionBy("user_id"), Window.partitionBy("user_id", "date")
    numbered = rows.withColumn("number", F.row_number().over(order))
    second = F.col("number") - F.min("number").over(day_of_user)
    moved = F.datediff(_sample_day(), F.max("date").over(all_of_user))
    return numbered.select(
        "*",
        F.count("*").over(all_of_user).alias("length"),
        F.timestamp_seconds((F.unix_date("date") + moved) * 86_400 + second).alias("time"),
        F.avg("rating").over(before).alias("earlier_rating"),
    )


def impressions(reviewed: DataFrame) -> DataFrame:
    """Each user's last review, and at the same time an item that the user never reviewed.

    A user who reviewed every item has no negative.

    Args:
        reviewed: what :func:`sequences` returns.

    Returns:
        Columns ``impression_id`` (``<user>-positive``, ``<user>-negative``), ``user_id``, ``item_id``, ``time``, ``label``,
        ``review_date``, ``earlier_reviews`` (T - 1), ``earlier_rating``.
    """
    last = reviewed.where(F.col("number") == F.col("length")).select(
        "user_id",
        "item_id",
        "time",
        F.col("date").alias("review_date"),
        (F.col("length") - 1).cast("int").alias("earlier_reviews"),
        "earlier_rating",
    )
    negatives = last.drop("item_id").join(negative_items(reviewed), "user_id")
    both = last.withColumn("label", F.lit(1)).unionByName(negatives.withColumn("label", F.lit(0)))
    kind = F.when(F.col("label") == 1, "positive").otherwise("negative")
    return both.withColumn("impression_id", F.concat_ws("-", "user_id", kind))


def negative_items(reviewed: DataFrame) -> DataFrame:
    """For each user an item among those that anyone reviewed and the user did not, each with the same chance.

    Items have numbers in the order of their ids. Of those that are left to a user the r-th is taken, r drawn by a hash: its number
    is r plus the count of the user's own items before it.

    Args:
        reviewed: columns ``user_id``, ``item_id``.

    Returns:
        Columns ``user_id``, ``item_id``.
    """
    numbers = (
        reviewed.select("item_id")
        .distinct()
        .select(
            "item_id",
            (F.row_number().over(Window.orderBy("item_id")) - 1).alias("item"),
            F.count("*").over(Window.partitionBy()).alias("items"),
        )
    )
    own = (
        reviewed.select("user_id", "item_id")
        .join(numbers, "item_id")
        .groupBy("user_id")
        .agg(F.array_sort(F.collect_set("item")).alias("own"), F.first("items").alias("items"))
    )
    left = own.where(F.size("own") < F.col("items"))
    drawn = F.pmod(F.xxhash64(F.lit("negative"), "user_id"), F.col("items") - F.size("own"))
    place = left.select("user_id", "own", drawn.alias("drawn"))
    passed = F.filter("own", lambda item, position: item - position <= F.col("drawn"))
    return (
        place.select("user_id", (F.col("drawn") + F.size(passed)).alias("item"))
        .join(numbers, "item")
        .select("user_id", "item_id")
    )


def behaviors(reviewed: DataFrame) -> DataFrame:
    """The reviews before each user's last.

    Args:
        reviewed: what :func:`sequences` returns.

    Returns:
        Columns ``user_id``, ``item_id``, ``time``, ``rating``.
    """
    return reviewed.where(F.col("number") < F.col("length")).select("user_id", "item_id", "time", "rating")


def items(metadata: DataFrame) -> DataFrame:
    """The items: ``item_id``, ``category``, ``brand``, ``price``.

    Args:
        metadata: columns of :data:`METADATA`.
    """
    path = F.try_element_at("categories", F.lit(-1))
    return metadata.select(
        F.col("asin").alias("item_id"),
        F.try_element_at(path, F.lit(-1)).alias("category"),
        F.nullif(F.col("brand"), F.lit("")).alias("brand"),
        "price",
    )


def _sample_day() -> Column:
    drawn = F.pmod(F.xxhash64(F.lit("day"), "user_id"), F.lit(DAYS))
    return F.date_add(F.lit(FIRST_DAY), drawn.cast("int"))


def _read(published: Published) -> dict[str, Log]:
    reviewed = sequences(published.keep(published.read(REVIEWS)))
    return {
        "impressions": by_day(impressions(reviewed)),
        # not by day: they lie on thousands of days, and every history reaches back to the first
        "behaviors": Log(behaviors(reviewed)),
        "items": Log(items(published.read(METADATA))),
    }


AMAZON_2014 = Importer((REVIEWS, METADATA), _read, "https://jmcauley.ucsd.edu/data/amazon/")
