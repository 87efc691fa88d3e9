"""What was known of a user, of an item, of a place at the time of an event, joined by Spark."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType, VariantType

from pipeline.config import AttributeSource
from pipeline.days import DAY_MICROSECONDS
from pipeline.logs.errors import LogError
from pipeline.logs.ids import text_of


def join_attributes(events: DataFrame, table: DataFrame, source: AttributeSource, key: str, name: str) -> DataFrame:
    """Add a table's columns to events; the rule of time is that of :class:`pipeline.config.AttributeSource`.

    Of several rows with one key and one ``valid_from`` the one that arrived last counts, for it corrects the others; then the greatest:
    its attributes, then its ``valid_to``, null being the least.

    Args:
        events: columns ``key``, ``time`` and any others.
        table: columns ``key``, those that say when, and the attributes.
        source: how long a row counts.
        key: ``user_id`` or ``item_id``.
        name: what to call the table in errors.

    Returns:
        The events, each once, with the attributes (null where nothing is known), and ``_<name>_known``, a boolean.
    """
    attributes = source.attributes
    known = f"_{name}_known"
    if "valid_from" not in table.columns:
        rows = _greatest(table, [key], attributes).withColumn(known, F.lit(True))
        return _flagged(events.join(rows, key, "left"), known)
    spans = _spans(table, attributes, key)
    spans = spans.withColumnRenamed(key, "_key")
    known_then = (
        (F.col(key) == F.col("_key"))
        & (F.col("_effective") < F.col("time"))
        & (F.col("_until").isNull() | (F.col("time") <= F.col("_until")))
    )
    joined = events.join(spans, known_then, "left")
    counts = F.col("_best").isNotNull() & _in_force(source)
    columns = {c: F.when(counts, F.col("_best")[c]) for c in attributes}
    return joined.withColumns({**columns, known: counts}).select(*events.columns, *attributes, known)


def known_spans(table: DataFrame, source: AttributeSource, key: str) -> DataFrame:
    """From when to when anything is known, by the rule of :func:`join_attributes`.

    Args:
        table: with ``key``, ``valid_from``, the other columns that say when, and the attributes.
        source: how long a row counts.
        key: ``user_id`` or ``item_id``.

    Returns:
        Columns ``key``, ``begin`` and ``end``, int64 microseconds: something is known at ``begin < time <= end``. The spans of a key
        do not overlap, but one may end where the next begins.
    """
    moments = [c for c in ("valid_from", "arrived") if c in table.columns]
    usable = table.dropna(subset=[key, *moments])
    best = F.col("_best")
    ends = [F.unix_micros("_until")]
    if "valid_to" in source.columns:
        ends.append(F.unix_micros(best["valid_to"]) - 1)
    if source.max_age_days is not None:
        ends.append(F.unix_micros(best["valid_from"]) + round(source.max_age_days * 86_400_000_000))
    never = F.lit((1 << 63) - 1)
    spans = _spans(usable, source.attributes, key).select(
        key,
        F.unix_micros("_effective").alias("begin"),
        F.least(*[F.coalesce(end, never) for end in ends], never).alias("end"),
    )
    return spans.where("begin < end")


def _spans(table: DataFrame, attributes: Sequence[str], key: str) -> DataFrame:
    """For each moment ``_effective`` at which a row came in force: ``_best``, which counts from then on, and ``_until``, the next one."""
    effective = F.greatest("valid_from", "arrived") if "arrived" in table.columns else F.col("valid_from")
    parts = [c for c in ("valid_from", "arrived", *attributes, "valid_to") if c in table.columns]
    so_far = Window.partitionBy(key).orderBy("_effective").rangeBetween(Window.unboundedPreceding, Window.currentRow)
    return (
        table.withColumn("_effective", effective)
        .withColumn("_best", F.max(F.struct(*parts)).over(so_far))
        .groupBy(key, "_effective")
        .agg(F.max("_best").alias("_best"))  # one for all rows of that moment
        .withColumn("_until", F.lead("_effective").over(Window.partitionBy(key).orderBy("_effective")))
    )


def join_lookup(events: DataFrame, table: DataFrame, keys: Sequence[str], name: str) -> DataFrame:
    """Add a table's columns by equality on ``keys``; events without a row get nulls, of rows with one key the greatest counts.

    Keys of two types, such as text and whole numbers, are compared as text, see :func:`pipeline.logs.ids.text_of`.

    Raises:
        LogError: the events lack a key, or a key is no single value.
    """
    lacking = [key for key in keys if key not in events.columns]
    if lacking:
        raise LogError(
            f"{name}.keys: the impressions have no column {lacking[0]!r}; they have {', '.join(sorted(events.columns))}"
        )
    attributes = [c for c in table.columns if c not in keys]
    rows = _greatest(table, keys, attributes)
    texts: dict[str, Column] = {}
    for key in keys:
        kinds = [frame.schema[key].dataType for frame in (events, rows)]
        for kind in kinds:
            if isinstance(kind, (ArrayType, MapType, StructType, VariantType)):
                raise LogError(
                    f"{name}.keys: {key} is {kind.simpleString()}, which is many values; give it an expression that picks one"
                )
        if kinds[0] != kinds[1]:
            texts[key] = text_of(F.col(key), kinds[0])
            rows = rows.withColumn(key, text_of(F.col(key), kinds[1]))
    hidden = {key: f"_key_{key}" for key in texts}
    joined = events.withColumns({hidden[key]: text for key, text in texts.items()})
    rows = rows.withColumnsRenamed(hidden)
    return joined.join(rows, [hidden.get(key, key) for key in keys], "left").drop(*hidden.values())


def _in_force(source: AttributeSource) -> Column:
    """Whether the row ``_best`` has not ended and is not too old at ``time``."""
    counts = F.lit(True)
    if "valid_to" in source.columns:
        counts = F.col("_best")["valid_to"].isNull() | (F.col("time") < F.col("_best")["valid_to"])
    if source.max_age_days is not None:
        age = F.expr(f"INTERVAL {round(source.max_age_days * DAY_MICROSECONDS)} MICROSECONDS")
        counts = counts & (F.col("time") <= F.col("_best")["valid_from"] + age)
    return counts


def _flagged(frame: DataFrame, known: str) -> DataFrame:
    return frame.withColumn(known, F.coalesce(known, F.lit(False)))


def _greatest(table: DataFrame, keys: Sequence[str], attributes: Sequence[str]) -> DataFrame:
    if not attributes:
        return table.select(*keys).distinct()
    best = table.groupBy(*keys).agg(F.max(F.struct(*attributes)).alias("_best"))
    return best.select(*keys, *[F.col("_best")[c].alias(c) for c in attributes])
