"""For the scans of all rows: what was known of users and items, and which of several deliveries counts, in Spark's own words."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipeline.audit.tables import MICROS
from pipeline.config import AttributeSource, Lookup


def with_known(
    events: DataFrame, table: DataFrame, source: AttributeSource, key: str, values: Sequence[str], flag: str
) -> DataFrame:
    """Add what was known at the time of each event, by laying events and rows of the table on one line of time.

    Args:
        events: columns ``key``, :data:`MICROS` and others.
        table: see :class:`pipeline.audit.tables.Tables`.
        source: how long a row counts.
        key: ``user_id`` or ``item_id``.
        values: the table's columns to add.
        flag: name of a new column: whether anything was known.
    """
    dated = "valid_from" in source.columns
    row = F.struct("_from", "_arrived", *values, "_to")
    if not dated:
        best = table.groupBy(key).agg(F.max(row).alias("_row"))
        joined = events.join(best, key, "left")
        known = F.col("_row").isNotNull()
    else:
        moment = F.greatest("_from", F.coalesce("_arrived", "_from"))
        rows = table.select(key, moment.alias("_at"), F.lit(1).alias("_order"), row.alias("_row"))
        asked = events.select(
            key, F.col(MICROS).alias("_at"), F.lit(0).alias("_order"), F.struct(*events.columns).alias("_event")
        )
        # at one moment the event comes first: what was said at that moment it did not know
        line = Window.partitionBy(key).orderBy("_at", "_order").rowsBetween(Window.unboundedPreceding, Window.currentRow)
        joined = asked.unionByName(rows, allowMissingColumns=True).withColumn("_row", F.max("_row").over(line))
        joined = joined.where("_order = 0").select("_event.*", "_row")
        known = F.col("_row").isNotNull() & (F.col("_row._to").isNull() | (F.col(MICROS) < F.col("_row._to")))
        if source.max_age_days is not None:
            known = known & (F.col(MICROS) <= F.col("_row._from") + round(source.max_age_days * 86_400_000_000))
    columns = {value: F.when(known, F.col("_row")[value]) for value in values}
    return joined.withColumns({**columns, flag: known}).drop("_row")


def with_lookup(events: DataFrame, table: DataFrame, lookup: Lookup) -> DataFrame:
    """Add a lookup's columns by equality; of its rows with one key the greatest counts."""
    values = [column for column in lookup.columns if column not in lookup.keys]
    best = table.groupBy(*lookup.keys).agg(F.max(F.struct(*values)).alias("_row")) if values else table.distinct()
    joined = events.join(best, list(lookup.keys), "left")
    return joined.withColumns({value: F.col("_row")[value] for value in values}).drop("_row")


def first_delivery(rows: DataFrame, keys: Sequence[str], order: Sequence[str]) -> DataFrame:
    """Of the rows of one key the first by ``order``, missing values last; columns ``keys`` and ``order``."""
    parts: list[Column] = [F.struct(F.col(c).isNull().alias("missing"), F.col(c).alias("value")).alias(c) for c in order]
    least = rows.groupBy(*keys).agg(F.min(F.struct(*parts)).alias("_least"))
    return least.select(*keys, *[F.col("_least")[c]["value"].alias(c) for c in order])
