"""From events to the raw columns of samples: attributes joined, fields evaluated, nothing encoded yet."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import NumericType

from pipeline.attributes import join_attributes, join_lookup
from pipeline.config import DataConfig, FieldConfig, Source
from pipeline.events import Events
from pipeline.logs import LogError, evaluate, read_source


def impression_columns(spark: SparkSession, config: DataConfig, events: Events) -> DataFrame:
    """The impressions with the raw values of their candidate, user and context fields.

    Returns:
        ``day``, ``impression_id``, ``user_id``, ``time`` (timestamp), ``label``, then a column a field: string where it is
        categorical, double where it is numeric.

    Raises:
        LogError: a table cannot be used, an expression cannot be evaluated, a numeric field is no number.
    """
    frame = events.impressions
    if config.items is not None:
        frame = join_attributes(frame, _table(spark, "items", config.items), "item_id", "items")
    if config.users is not None:
        frame = join_attributes(frame, _table(spark, "users", config.users), "user_id", "users")
    for i, lookup in enumerate(config.lookups):
        name = f"lookups.{i}"
        frame = join_lookup(frame, read_source(spark, name, lookup), lookup.keys, name)
    fields = config.fields
    groups = {"candidate": fields.candidate, "user": fields.user, "context": fields.context}
    columns = [
        field_column(frame, f"fields.{group}.{name}", name, field).alias(f"{group}_{name}")
        for group, members in groups.items()
        for name, field in members.items()
    ]
    return frame.select("day", "impression_id", "user_id", "time", "label", *columns)


def behavior_columns(spark: SparkSession, config: DataConfig, events: Events) -> DataFrame:
    """The behaviors with the raw values of their fields: ``impression_id``, ``user_id``, ``item_id``, ``time``, ``behavior_*``.

    Raises:
        LogError: as :func:`impression_columns`.
    """
    frame = events.behaviors
    if config.items is not None:
        frame = join_attributes(frame, _table(spark, "items", config.items), "item_id", "items")
    columns = [
        field_column(frame, f"fields.behaviors.{name}", name, field).alias(f"behavior_{name}")
        for name, field in config.fields.behaviors.items()
    ]
    return frame.select("impression_id", "user_id", "item_id", "time", *columns)


def field_column(frame: DataFrame, where: str, name: str, field: FieldConfig) -> Column:
    """A field's raw value over the joined columns: string, or double.

    Raises:
        LogError: the expression cannot be evaluated, or a numeric field is no number.
    """
    column = evaluate(frame, where, field.expression if field.expression is not None else f"`{name}`")
    if field.kind == "categorical":
        return column.cast("string")
    kind = frame.select(column.alias("value")).schema["value"].dataType
    if not isinstance(kind, NumericType):
        raise LogError(
            f"{where}: a numeric field is {kind.simpleString()}; give it an expression such as try_cast({name} AS DOUBLE), "
            "or make the field categorical"
        )
    return column.cast("double")


def micros(frame: DataFrame) -> DataFrame:
    """``time`` from timestamp to int64 microseconds since 1970-01-01 UTC."""
    return frame.withColumn("time", F.unix_micros("time"))


def _table(spark: SparkSession, name: str, source: Source) -> DataFrame:
    frame = read_source(spark, name, source)
    key = "user_id" if name == "users" else "item_id"
    if "valid_from" in frame.columns and frame.schema["valid_from"].dataType.typeName() != "timestamp":
        kind = frame.schema["valid_from"].dataType.simpleString()
        raise LogError(f"{name}.columns.valid_from: is {kind}, not a timestamp; write timestamp(...) round it")
    return frame.where(F.col(key).isNotNull())
