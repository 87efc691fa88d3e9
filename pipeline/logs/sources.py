"""Reading the tables that a configuration names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config import RECORDED, Source, column_place
from pipeline.io.files import literal
from pipeline.io.storage import Storage
from pipeline.logs.determinism import changing_part
from pipeline.logs.errors import LogError, first_line, remedy, spark_words
from pipeline.logs.expressions import NAMELESS, evaluate
from pipeline.logs.ids import IDS, KIND, id_of
from pipeline.logs.schemas import MERGED, files_by_header, with_all_columns

#: When the label of a labeled log's row became known. No feature: at the impression it lies in the future.
LABEL_TIME = "label_time"
MOMENTS = ("time", "arrived", "valid_from", "valid_to", LABEL_TIME)

#: Formats of lines, which can be broken.
LINES = ("csv", "json")

#: A line that is no row of the table, as text; only where the format has lines.
CORRUPT = "_corrupt_record"
#: The date of the partition that a row lies in, null where it is none; only where the source has a day_column.
PARTITION_DAY = "_partition_day"

#: What is wrong with the lists of a row; null if nothing is. Only if the source has ``explode`` or a recorded history.
LIST_FAULT = "_list_fault"
LIST_FAULTS = (
    "the list of explode is null",
    "an element of the list of explode is null",
    "the lists of the recorded history differ in length",
)
#: What ``explode`` adds to the source's own columns.
ELEMENT, POSITION = "element", "position"


def read_source(spark: SparkSession, name: str, source: Source, days: tuple[dt.date, dt.date] | None = None) -> DataFrame:
    """Read a table and give its columns the names that the configuration says; ids become text, see :func:`pipeline.logs.ids.id_of`.

    Args:
        spark: the session.
        name: what to call the table in errors: its place in the configuration.
        source: where it lies.
        days: the first and the last day needed; used where the source has a ``day_column``.

    Returns:
        The configured columns, and :data:`CORRUPT`, :data:`PARTITION_DAY` and :data:`LIST_FAULT` where the source can have them.

    Raises:
        LogError: no such path or table, no files, a column that is not there, an expression that Spark does not accept, a moment
            that is no timestamp, an id that is neither text nor a number.
    """
    needed = None if days is None else (days[0], days[1] + dt.timedelta(days=source.late_days))
    frame = _load(spark, name, source, needed)
    extra = {}
    faults: list[Column] = []
    if source.day_column is not None:
        day = _partition_day(frame, f"{name}.day_column", source.day_column)
        extra[PARTITION_DAY] = day
        if needed is not None:
            wanted = day.between(*map(F.lit, needed))
            frame = frame.where(wanted | day.isNull())  # rows in a partition of no day are not to be lost in silence
    if source.explode is not None:
        frame = _exploded(frame, f"{name}.explode", source.explode)
        faults.append(_list_fault())
    if source.where is not None:
        condition = evaluate(frame, f"{name}.where", source.where)
        _check_condition(frame.select(condition.alias("where")).schema, f"{name}.where")
        frame = frame.where(condition)
    columns = {c: evaluate(frame, column_place(name, c), e) for c, e in source.columns.items()}
    schema = frame.select(*[column.alias(c) for c, column in columns.items()]).schema
    _check_kinds(schema, name)
    if source.format in LINES and CORRUPT in frame.columns:
        extra[CORRUPT] = _unparsed(schema, columns)
    for c in IDS:
        if c in columns:
            text, kind = id_of(columns[c], schema[c].dataType)
            columns[c] = text.alias(c, metadata={KIND: kind})
    lists = [c for c in columns if c.startswith(RECORDED)]
    if lists:
        columns |= {c: columns[c].cast("array<string>") for c in lists if c == f"{RECORDED}item_id"}
        faults.append(_length_fault([columns[c] for c in lists]))
    if faults:
        extra[LIST_FAULT] = F.coalesce(*faults)
    return frame.select(*[column if c in IDS else column.alias(c) for c, column in (columns | extra).items()])


def _exploded(frame: DataFrame, where: str, expression: str) -> DataFrame:
    """A row for each element of a list, with :data:`ELEMENT` and :data:`POSITION`; one, with nulls, for a list that is null.

    Raises:
        LogError: the expression cannot be evaluated or gives no array, or the source has columns of these names.
    """
    elements = evaluate(frame, where, expression)
    kind = frame.select(elements.alias("list")).schema["list"].dataType
    if not isinstance(kind, T.ArrayType):
        raise LogError(
            f"{where}: it is {kind.simpleString()}, not an array; write it as split(...), from_json(...) or array(...)"
        )
    for column in frame.columns:
        if column.lower() in (ELEMENT, POSITION):
            raise LogError(
                f"{where}: the source has a column {column!r}, a name that explode gives to each {column.lower()} of the list; "
                "read the source by a view in which the column has another name"
            )
    lists = frame.where(elements.isNull() | (F.size(elements) > 0))
    return lists.select("*", F.posexplode_outer(elements).alias(POSITION, ELEMENT))


def _list_fault() -> Column:
    no_list, no_element, _ = LIST_FAULTS
    return F.when(F.col(POSITION).isNull(), F.lit(no_list)).when(F.col(ELEMENT).isNull(), F.lit(no_element))


def _length_fault(lists: Sequence[Column]) -> Column:
    first, *others = (F.coalesce(F.size(column), F.lit(0)) for column in lists)
    differ = F.lit(False)
    for other in others:
        differ = differ | (first != other)
    return F.when(differ, F.lit(LIST_FAULTS[-1]))


def _load(spark: SparkSession, name: str, source: Source, days: tuple[dt.date, dt.date] | None) -> DataFrame:
    if source.table is not None:
        try:
            table = spark.read.table(source.table)
        except AnalysisException as error:
            raise LogError(f"{name}: no table {source.table!r} that can be read: {first_line(error)}") from error
        changing = changing_part(table)
        if changing is not None:
            raise LogError(
                f"{name}: the view {source.table!r} is not the same when it is read again: {changing} draws chance, or depends on the "
                "clock or the session; take it out of the view, or read the table behind it"
            )
        return table
    options = {key: str(value) for key, value in source.options.items()}
    if source.format == "csv":
        options.setdefault("columnPruning", "false")  # else nobody looks at how many columns a line has
        options.setdefault("escape", '"')  # RFC 4180, and pandas: a quote inside of quotes is doubled
    reader = spark.read.format(source.format).options(**options)
    if source.table_schema is not None:
        try:
            reader = reader.schema(source.table_schema)
        except Exception as error:  # Spark's parser and py4j each have their own
            raise LogError(f"{name}.schema: {first_line(error)}") from error
    try:
        path = _path(spark, str(source.path))
        frame = reader.load(path)
        if source.format in MERGED and source.table_schema is None and "mergeSchema" not in source.options:
            frame = with_all_columns(spark, reader, frame, path, source.day_column, days)
        if source.format not in LINES:
            return frame
        base, groups = files_by_header(spark, frame, options, source.day_column, days) if _has_headers(source) else ("", [])
        if not groups:
            return _load_lines(reader, frame.schema, name, source, path)
        reader = reader.option("basePath", base)
        schemas = [reader.load(files).schema for files in groups]  # before the reader is given one
        parts = [_load_lines(reader, schema, name, source, files) for schema, files in zip(schemas, groups, strict=True)]
        union = parts[0]
        for part in parts[1:]:
            union = union.unionByName(part, allowMissingColumns=True)
        return union
    except (PySparkException, Py4JJavaError) as error:  # the second where a footer cannot be read, in a job of Spark's own
        condition = error.getCondition() if isinstance(error, PySparkException) else None
        if condition == "PATH_NOT_FOUND":
            raise LogError(f"{name}: no such path: {source.path}; correct {name}.path") from error
        if condition == "UNABLE_TO_INFER_SCHEMA":
            raise LogError(
                f"{name}: {source.path} has no {source.format} files; correct {name}.path or {name}.format, or bring the files"
            ) from error
        advice = remedy(str(error), f"correct {name}.path, {name}.format or {name}.options, or write the files anew")
        raise LogError(f"{name}: cannot read {source.path} as {source.format}: {spark_words(error)}; {advice}") from error


def _path(spark: SparkSession, path: str) -> str:
    """A source's path for Spark's readers; one that is there under its own name is no pattern, whatever signs it holds."""
    return literal(path) if literal(path) != path and Storage(spark).exists(path) else path


def _has_headers(source: Source) -> bool:
    """Whether the first line of each file says which columns it has, and nothing else does."""
    options = {key.lower(): str(value).lower() for key, value in source.options.items()}
    return (
        source.format == "csv"
        and source.table_schema is None
        and options.get("header") == "true"
        and "enforceschema" not in options
    )


def _load_lines(reader: DataFrameReader, schema: T.StructType, name: str, source: Source, path: str | list[str]) -> DataFrame:
    """Read lines so that a broken one is kept, as :data:`CORRUPT`, and no file is read by another's header."""
    kept = [field for field in schema.fields if field.name != CORRUPT]
    if source.format == "json" and len(kept) < len(schema.fields) and {field.name for field in kept} <= {source.day_column}:
        raise LogError(
            f"{name}: no line of {source.path} is a JSON object; correct {name}.format, or, where a file is one JSON array over "
            "several lines, say `options: {multiLine: true}`"
        )
    nameless = source.table_schema is None and any(map(NAMELESS.fullmatch, schema.names))
    if source.format == "csv" and "enforceSchema" not in source.options and not nameless:
        # else a file with its columns in another order is read as if they were in the first one's
        reader = reader.option("enforceSchema", "false")
    if "mode" not in source.options:
        # else Spark makes what it can of a broken line, and says nothing
        kept.append(T.StructField(CORRUPT, T.StringType()))
        reader = reader.option("columnNameOfCorruptRecord", CORRUPT)
    return reader.schema(T.StructType(kept)).load(path)


def _unparsed(schema: T.StructType, columns: Mapping[str, Column]) -> Column:
    """:data:`CORRUPT`, tied to all columns: Spark finds a line broken only by those that a query needs."""
    hashed = [column for c, column in columns.items() if "map<" not in schema[c].dataType.simpleString()]
    return F.when(F.xxhash64(*hashed) >= F.lit(-(2**63)), F.col(CORRUPT))


def _partition_day(frame: DataFrame, where: str, name: str) -> Column:
    column = evaluate(frame, where, F.col(name))
    kind = frame.select(column.alias(name)).schema[name].dataType
    if not isinstance(kind, (T.StringType, T.DateType, T.TimestampType, T.TimestampNTZType)):
        raise LogError(
            f"{where}: {name} is {kind.simpleString()}, not a date; name the folders as in {name}=2026-01-31, or leave day_column "
            "out: then rows are taken by their time, from all files"
        )
    return column.try_cast("date")


def _check_condition(schema: T.StructType, where: str) -> None:
    kind = schema.fields[0].dataType
    if not isinstance(kind, T.BooleanType):
        raise LogError(f"{where}: it is {kind.simpleString()}, not true or false; compare it with something")


def _check_kinds(schema: T.StructType, name: str) -> None:
    for field in schema.fields:
        kind = field.dataType
        if field.name.startswith(RECORDED):
            _check_list(field)
        if field.name in MOMENTS and not isinstance(kind, T.TimestampType):
            raise LogError(
                f"{name}: {field.name} is {kind.simpleString()}, not a timestamp; write its expression as timestamp_millis(...), "
                "timestamp_seconds(...) or to_timestamp(...)"
            )
        if field.name in IDS and not isinstance(kind, (T.StringType, T.NumericType, T.BinaryType)):
            raise LogError(
                f"{name}: {field.name} is {kind.simpleString()}, and an id is text or a whole number; correct its expression, as "
                f"with CAST(... AS BIGINT) for numbers or to_json(...) for what has parts"
            )


def _check_list(field: T.StructField) -> None:
    where, kind = column_place("", field.name), field.dataType
    if not isinstance(kind, T.ArrayType):
        raise LogError(
            f"{where}: it is {kind.simpleString()}, not an array; write it as split(...), from_json(...) or array(...)"
        )
    if field.name == f"{RECORDED}time" and not isinstance(kind.elementType, T.TimestampType):
        raise LogError(
            f"{where}: it is {kind.simpleString()}, not an array of timestamps; write it as transform(..., t -> timestamp_millis(t))"
        )
    if field.name == f"{RECORDED}item_id" and not isinstance(kind.elementType, (T.StringType, T.IntegralType)):
        raise LogError(f"{where}: it is {kind.simpleString()}, and an id is text or a whole number; correct the expression")
