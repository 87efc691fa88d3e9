"""The columns that the files of a log have together: a column may begin on a later day, or be null for all of a day."""

from __future__ import annotations

import base64
import contextlib
import csv
import datetime as dt
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql import types as T

from pipeline.io.files import literal

#: Formats whose files have a schema of their own.
MERGED = ("parquet", "orc")

#: Where pyarrow, and so pandas, writes its own types into a Parquet file.
_ARROW_SCHEMA = "ARROW:schema"


def with_all_columns(
    spark: SparkSession,
    reader: DataFrameReader,
    frame: DataFrame,
    path: str,
    day_column: str | None,
    days: Sequence[dt.date] | None,
) -> DataFrame:
    """A table with the columns of all of its files, null where a file lacks one.

    Only the footers of files that can be needed are read. Where their types cannot be brought together the frame is returned as it is:
    reading the rows then says which file and which column it is.

    Args:
        spark: the session.
        reader: what read the frame.
        frame: the table with the columns of one of its files, and those of its partitions.
        path: what was read.
        day_column: the partition column with the day of a row, if there is one.
        days: the first and the last day that are needed; None where all are.
    """
    files = [unquote(file) for file in frame.inputFiles()]
    needed = files if day_column is None or days is None else [file for file in files if _is_needed(file, day_column, *days)]
    partitions = _partitions(frame, files)
    if len(files) < 2 or not needed:
        return frame
    merging = reader.option("mergeSchema", "true")
    try:
        merged = merging.load(list(map(literal, needed)) if len(needed) < len(files) else path).schema
    except (PySparkException, Py4JJavaError) as error:
        if "CANNOT_MERGE_SCHEMAS" not in str(error):
            return frame
        return _typed(spark, merging, frame, needed, partitions)
    return reader.schema(_schema(merged, frame, partitions)).load(path)


def files_by_header(
    spark: SparkSession,
    frame: DataFrame,
    options: Mapping[str, str],
    day_column: str | None,
    days: Sequence[dt.date] | None,
) -> tuple[str, list[list[str]]]:
    """The CSV files of a table that can be needed, those with one header together.

    Args:
        spark: the session.
        frame: the table as read by the header of one of its files.
        options: of Spark's reader.
        day_column: the partition column with the day of a row, if there is one.
        days: the first and the last day that are needed; None where all are.

    Returns:
        The folder that the partitions are below, for the option ``basePath``, and the groups of files, each a path for Spark's readers;
        no group where all files have the frame's columns.
    """
    files = [unquote(file) for file in frame.inputFiles()]
    partitions = _partitions(frame, files)
    columns = tuple(name for name in frame.columns if name not in partitions)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    if len(files) > 1:
        for file in files:
            if day_column is None or days is None or _is_needed(file, day_column, *days):
                try:
                    header = _header(spark, file, options)
                except Py4JJavaError:
                    header = columns  # reading its rows says what is wrong with it
                if header:  # an empty file has no rows
                    groups[header].append(file)
    if set(groups) <= {columns}:
        return "", []
    return _base(files, partitions), [list(map(literal, names)) for names in groups.values()]


def _header(spark: SparkSession, file: str, options: Mapping[str, str]) -> tuple[str, ...]:
    """The names in the first line of a CSV file, compressed or not; none where it is empty."""
    context: Any = spark.sparkContext
    jvm, conf = context._jvm, context._jsc.hadoopConfiguration()
    path = jvm.org.apache.hadoop.fs.Path(file)
    codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(conf).getCodec(path)
    given = {key.lower(): value for key, value in options.items()}
    charset = given.get("encoding", given.get("charset", "UTF-8"))
    with contextlib.closing(path.getFileSystem(conf).open(path)) as stream:
        plain = stream if codec is None else codec.createInputStream(stream)
        line = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(plain, charset)).readLine()
    separator = given.get("sep", given.get("delimiter", ","))
    text = str(line or "").lstrip("\ufeff")
    if len(separator) > 1:
        return tuple(text.split(separator)) if text else ()
    return tuple(next(csv.reader([text], delimiter=separator), ()))


def _base(files: Sequence[str], partitions: Sequence[str]) -> str:
    """The folder that a table's partitions are below, of files that are in them."""
    return re.split(rf"/{re.escape(partitions[0])}=", files[0])[0] if partitions else files[0].rpartition("/")[0]


def _typed(
    spark: SparkSession, merging: DataFrameReader, frame: DataFrame, files: Sequence[str], partitions: Sequence[str]
) -> DataFrame:
    """The files with those apart that have columns without a type."""
    groups: dict[frozenset[str], list[str]] = defaultdict(list)
    for file in files:
        groups[_untyped_columns(spark, file)].append(file)
    if len(groups) == 1:
        return frame
    base = _base(files, partitions)
    parts = []
    for untyped, names in groups.items():
        try:
            parts.append(merging.option("basePath", base).load(list(map(literal, names))).drop(*untyped))
        except (PySparkException, Py4JJavaError):
            return frame
    union = parts[0]
    for part in parts[1:]:
        union = union.unionByName(part, allowMissingColumns=True)
    return union


def _untyped_columns(spark: SparkSession, file: str) -> frozenset[str]:
    """Columns that have no type, as nothing was ever in them; pandas writes such, and Spark takes them for integers."""
    context: Any = spark.sparkContext
    jvm = context._jvm
    path = jvm.org.apache.hadoop.fs.Path(file)
    source = jvm.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(path, context._jsc.hadoopConfiguration())
    footer = jvm.org.apache.parquet.hadoop.ParquetFileReader.open(source)
    try:
        schema = footer.getFileMetaData().getKeyValueMetaData().get(_ARROW_SCHEMA)
    finally:
        footer.close()
    if schema is None:
        return frozenset()
    fields = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema)))
    return frozenset(field.name for field in fields if pa.types.is_null(field.type))


def _is_needed(file: str, day_column: str, first: dt.date, last: dt.date) -> bool:
    """Whether a file can lie in the partition of one of the days; also where its partition is of no day, which breaks a rule."""
    found = re.search(rf"/{re.escape(day_column)}=([^/]+)/", file)
    try:
        return found is None or first <= dt.date.fromisoformat(found[1]) <= last
    except ValueError:
        return True


def _partitions(frame: DataFrame, files: Sequence[str]) -> list[str]:
    """The columns that are names of folders."""
    return [name for name in frame.columns if files and all(f"/{name}=" in file for file in files)]


def _schema(merged: T.StructType, frame: DataFrame, partitions: Sequence[str]) -> T.StructType:
    own = [field for field in merged.fields if field.name not in partitions]
    return T.StructType([*own, *[field for field in frame.schema.fields if field.name in partitions]])
