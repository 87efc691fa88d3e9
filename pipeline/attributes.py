"""What was known of a user, of an item, of a place at the time of an impression."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from pipeline.logs import LogError


def join_attributes(events: DataFrame, table: DataFrame, key: str, name: str) -> DataFrame:
    """Add a table's columns to events; events without a row get nulls.

    Where the table has ``valid_from`` (a timestamp), the row with the greatest ``valid_from`` strictly before the event's ``time``
    counts: a snapshot that was taken later was not known. Of several rows with one key (and one ``valid_from``) the greatest counts.

    Args:
        events: columns ``key``, ``time`` and any others.
        table: columns ``key``, maybe ``valid_from``, and the attributes.
        key: ``user_id`` or ``item_id``.
        name: what to call the table in errors.

    Returns:
        The events, each once, with the attributes.

    Raises:
        LogError: an attribute has the name of a column that the events have already.
    """
    attributes = [c for c in table.columns if c not in (key, "valid_from")]
    _refuse_twice(events, attributes, name)
    if "valid_from" not in table.columns:
        return _join_once(events, table, [key], attributes)
    rows = _greatest(table, [key, "valid_from"], attributes)
    order = Window.partitionBy(key).orderBy("valid_from")
    spans = rows.withColumn("valid_to", F.lead("valid_from").over(order)).alias("spans")
    left = events.alias("events")
    known = (
        (F.col(f"events.{key}") == F.col(f"spans.{key}"))
        & (F.col("spans.valid_from") < F.col("events.time"))
        & (F.col("spans.valid_to").isNull() | (F.col("events.time") <= F.col("spans.valid_to")))
    )
    joined = left.join(spans, known, "left")
    return joined.select("events.*", *[F.col(f"spans.{c}").alias(c) for c in attributes])


def join_lookup(events: DataFrame, table: DataFrame, keys: Sequence[str], name: str) -> DataFrame:
    """Add a table's columns by equality on ``keys``; events without a row get nulls, of rows with one key the greatest counts.

    Raises:
        LogError: the events lack a key, or have a column of the table already.
    """
    lacking = [key for key in keys if key not in events.columns]
    if lacking:
        raise LogError(
            f"{name}.keys: the impressions have no column {lacking[0]!r}; they have {', '.join(sorted(events.columns))}"
        )
    attributes = [c for c in table.columns if c not in keys]
    _refuse_twice(events, attributes, name)
    return _join_once(events, table, keys, attributes)


def _refuse_twice(events: DataFrame, attributes: Sequence[str], name: str) -> None:
    twice = [c for c in attributes if c in events.columns]
    if twice:
        raise LogError(f"{name}.columns: {twice[0]!r} is a column of the events already; give it another name")


def _join_once(events: DataFrame, table: DataFrame, keys: Sequence[str], attributes: Sequence[str]) -> DataFrame:
    return events.join(_greatest(table, keys, attributes), list(keys), "left")


def _greatest(table: DataFrame, keys: Sequence[str], attributes: Sequence[str]) -> DataFrame:
    if not attributes:
        return table.select(*keys).distinct()
    best = table.groupBy(*keys).agg(F.max(F.struct(*attributes)).alias("best"))
    return best.select(*keys, *[F.col("best")[c].alias(c) for c in attributes])
