"""Amazon reviews of 2023, of one category or several, with their true times.

Published at https://amazon-reviews-2023.github.io/ (McAuley Lab; Hou et al. 2024, to be cited). The page and the data set's card name
no license that we know of, and the reviews are Amazon's and its customers': for research.

Layout: ``<Category>.jsonl.gz``, one review a line: ``user_id``, ``parent_asin``, ``asin``, ``rating``, ``timestamp`` (milliseconds) ...;
and ``meta_<Category>.jsonl.gz``, one item a line: ``parent_asin``, ``main_category``, ``categories``, ``store``, ``price`` ... An item is
its ``parent_asin``: variants of one product share it. A price may be missing, or a text with no single number (``from 14.99``): both
are null here. The item's mean rating and number of ratings are of the day it was crawled, so of the future: they are left out.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Importer, Log, by_day, with_impression_id
from pipeline.importers.published_files import JsonLines, Published

REVIEWS = JsonLines(
    ("[A-Z]*.jsonl",),
    {"user_id": "string", "parent_asin": "string", "rating": "double", "timestamp": "bigint", "verified_purchase": "boolean"},
    ("user_id", "parent_asin", "timestamp"),
)
METADATA = JsonLines(
    ("meta_*.jsonl",),
    {"parent_asin": "string", "main_category": "string", "categories": "array<string>", "store": "string", "price": "string"},
    ("parent_asin",),
)


def impressions(reviews: DataFrame) -> DataFrame:
    """Each review as a positive: ``impression_id``, ``user_id``, ``item_id``, ``time``, ``rating``, ``verified_purchase``.

    Args:
        reviews: columns of :data:`REVIEWS`.
    """
    rows = with_impression_id(reviews, "user_id", "parent_asin", "timestamp")
    return rows.select(
        "impression_id",
        "user_id",
        F.col("parent_asin").alias("item_id"),
        F.timestamp_millis("timestamp").alias("time"),
        "rating",
        "verified_purchase",
    )


def items(metadata: DataFrame) -> DataFrame:
    """The items: ``item_id``, ``main_category``, ``category`` (the most special of ``categories``), ``store``, ``price``.

    Args:
        metadata: columns of :data:`METADATA`.
    """
    return metadata.select(
        F.col("parent_asin").alias("item_id"),
        "main_category",
        F.coalesce(F.try_element_at("categories", F.lit(-1)), "main_category").alias("category"),
        "store",
        F.expr("try_cast(price AS DOUBLE)").alias("price"),
    )


def _read(published: Published) -> dict[str, Log]:
    return {
        "impressions": by_day(impressions(published.read(REVIEWS))),
        "items": Log(items(published.read(METADATA))),
    }


AMAZON_2023 = Importer((REVIEWS, METADATA), _read, "https://amazon-reviews-2023.github.io/")
