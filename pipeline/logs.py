"""Reading the logs that a configuration names, and refusing those that cannot be used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import TimestampType

from pipeline.config import Source

#: Event times outside these years are taken for a wrong unit, not for data.
PLAUSIBLE_YEARS = (1990, 2100)
EVENT_COLUMNS = ("impression_id", "user_id", "item_id", "time")


class LogError(ValueError):
    """A log that cannot be used: which one, what is wrong, what to do."""


def read_source(spark: SparkSession, name: str, source: Source, days: tuple[dt.date, dt.date] | None = None) -> DataFrame:
    """Read a table and give its columns the names that the configuration says; ids become strings.

    Args:
        spark: the session.
        name: what to call the table in errors: its place in the configuration.
        source: where it lies.
        days: the first and the last day needed; used where the source has a ``day_column``.

    Raises:
        LogError: no such path, no files, a column that is not there, an expression that Spark does not accept.
    """
    reader = spark.read.format(source.format).options(**{key: str(value) for key, value in source.options.items()})
    if source.table_schema is not None:
        reader = reader.schema(source.table_schema)
    try:
        frame = reader.load(source.path)
    except AnalysisException as error:
        if error.getCondition() == "PATH_NOT_FOUND":
            raise LogError(f"{name}: no such path: {source.path}; correct {name}.path") from error
        raise LogError(f"{name}: cannot read {source.path} as {source.format}: {_first_line(error)}") from error
    except Py4JJavaError as error:  # a footer that cannot be read, in a job of Spark's own
        reason = next((line for line in str(error).splitlines() if "Caused by: " in line), str(error).splitlines()[0])
        raise LogError(f"{name}: cannot read {source.path} as {source.format}: {reason.removeprefix('Caused by: ')}") from error
    if source.day_column is not None:
        day = evaluate(frame, f"{name}.day_column", F.col(source.day_column).cast("date"))
        if days is not None:
            frame = frame.where(day.between(F.lit(days[0]), F.lit(days[1])))
    if source.where is not None:
        frame = frame.where(evaluate(frame, f"{name}.where", source.where))
    columns = select(frame, f"{name}.columns", source.columns)
    return columns.withColumns(
        {c: F.col(c).cast("string") for c in ("impression_id", "user_id", "item_id") if c in columns.columns}
    )


def evaluate(frame: DataFrame, where: str, expression: str | Column) -> Column:
    """An expression over a frame's columns, checked at once.

    Raises:
        LogError: a column is not there, or Spark does not accept the expression; ``where`` names its place in the configuration.
    """
    column = F.expr(expression) if isinstance(expression, str) else expression
    try:
        frame.select(column)
    except AnalysisException as error:
        raise LogError(f"{where}: {_first_line(error)}; the columns there are {', '.join(sorted(frame.columns))}") from error
    return column


def select(frame: DataFrame, where: str, expressions: Mapping[str, str]) -> DataFrame:
    """The frame of some named expressions; see :func:`evaluate`."""
    return frame.select(*[evaluate(frame, f"{where}.{name}", e).alias(name) for name, e in expressions.items()])


def check_events(
    frame: DataFrame, name: str, span: str, *, days: Iterable[dt.date] = (), label: bool = False
) -> dict[dt.date, int]:
    """Refuse an event log that cannot be used, and count it.

    Args:
        frame: columns of :data:`EVENT_COLUMNS`, and ``label`` where asked.
        name: what to call the log in errors.
        span: which days the frame was cut to, in words, for errors.
        days: days (UTC) that must have events.
        label: whether to check the labels.

    Returns:
        The number of rows a day, days in order.

    Raises:
        LogError: the log is empty, ids or times are null, times are no timestamps or in a wrong unit, a day is empty, a label is
            not 0 or 1.
    """
    kind = frame.schema["time"].dataType
    if not isinstance(kind, TimestampType):
        raise LogError(
            f"{name}: time is {kind.simpleString()}, not a timestamp; write its expression as timestamp_millis(...), "
            "timestamp_seconds(...) or to_timestamp(...)"
        )
    year = F.year("time")
    facts = frame.agg(
        F.count("*").alias("rows"),
        *[F.count_if(F.col(column).isNull()).alias(column) for column in EVENT_COLUMNS],
        F.count_if(~year.between(*PLAUSIBLE_YEARS)).alias("implausible"),
        # as text: a time in a wrong unit may lie beyond what Python's datetime can hold
        F.min("time").cast("string").alias("first"),
        F.max("time").cast("string").alias("last"),
    ).first()
    assert facts is not None
    if facts["rows"] == 0:
        raise LogError(f"{name}: no events {span}; correct the path, the condition (where) or the days asked for")
    for column in EVENT_COLUMNS:
        if facts[column]:
            raise LogError(
                f"{name}: {column} is null in {facts[column]} of {facts['rows']} rows {span}; "
                f"leave such rows out with `where: {column} IS NOT NULL`, or correct the expression"
            )
    if facts["implausible"]:
        raise LogError(
            f"{name}: {facts['implausible']} of {facts['rows']} times lie outside the years {PLAUSIBLE_YEARS[0]} to "
            f"{PLAUSIBLE_YEARS[1]} (from {facts['first']} to {facts['last']}): is the unit right, seconds or milliseconds? "
            "Correct the expression of time: timestamp_seconds(...) or timestamp_millis(...)"
        )
    if label:
        _check_labels(frame, name)
    counts = {row["day"]: row["count"] for row in frame.groupBy(F.to_date("time").alias("day")).count().collect()}
    empty = [day for day in days if day not in counts]
    if empty:
        raise LogError(
            f"{name}: no events on {', '.join(map(str, empty[:5]))}{' and other days' * (len(empty) > 5)} "
            f"(its events {span} run from {facts['first']} to {facts['last']} UTC); correct --from and --to, or bring the missing days"
        )
    return dict(sorted(counts.items()))


def _check_labels(frame: DataFrame, name: str) -> None:
    text = F.coalesce(F.col("label").cast("string"), F.lit("null"))
    wrong = frame.where(~text.isin("0", "1", "0.0", "1.0")).select(text.alias("label"), "impression_id")
    first = wrong.first()
    if first is not None:
        raise LogError(
            f"{name}: label is {first['label']!r} at impression {first['impression_id']!r} (one of {wrong.count()} such rows); "
            "a label is 0 or 1: write its expression so, as in `label: int(rating >= 4)`"
        )


def _first_line(error: Exception) -> str:
    message = str(error).strip().splitlines()[0]
    return message.split(" SQLSTATE")[0]
