"""Published files: found in the user's folder, read by Spark, refused where they are not what was published."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.io.files import FileInfo
from pipeline.io.storage import Storage

MALFORMED = "_malformed"
"""Column of a table as read: the line, where it cannot be read."""
FILE = "_file"
"""Column of a table as read: the name of the file that the line is in."""


class ImporterError(ValueError):
    """Files that cannot be imported, or a place that cannot be written: which, what is wrong, what to do."""


class Table(Protocol):
    """A table as it is published: its files, and how a line is written."""

    @property
    def files(self) -> Sequence[str]:
        """Patterns of its files' names; each file may also be compressed, with ``.gz`` behind its name."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns that are used -> their types in Spark."""

    @property
    def required(self) -> Sequence[str]:
        """Columns that are never empty."""

    def read(self, spark: SparkSession, paths: Sequence[str]) -> DataFrame:
        """All lines of the files: ``columns``, :data:`MALFORMED` and :data:`FILE`."""

    def written(self) -> str:
        """How a line is written, for errors."""


@dataclass(frozen=True)
class Delimited:
    """Lines of values with a separator between them."""

    files: Sequence[str]
    columns: Mapping[str, str]
    """Of a table with a header: those that are used, in any order. Of one without: all, in order."""
    required: Sequence[str]
    separator: str = ","
    header: bool = True
    quoted: bool = False
    """Whether a value may stand in double quotes, which are then doubled inside of it."""
    encoding: str = "UTF-8"
    null: str = ""
    """What stands for a missing value, beside nothing at all."""

    def read(self, spark: SparkSession, paths: Sequence[str]) -> DataFrame:
        """See :class:`Table`."""
        names = self._header(spark, paths) if self.header else list(self.columns)
        schema = ", ".join(f"`{name}` {self.columns.get(name, 'string')}" for name in [*names, MALFORMED])
        reader = spark.read.schema(schema).options(
            sep=self.separator,
            header=self.header,
            quote='"' if self.quoted else "",
            escape='"' if self.quoted else "\0",
            encoding=self.encoding,
            nullValue=self.null,
            mode="PERMISSIVE",
            columnNameOfCorruptRecord=MALFORMED,
            columnPruning=False,  # otherwise a line with too few or too many values passes
        )
        return reader.csv(list(paths)).select(*_quoted(self.columns), MALFORMED, F.col("_metadata.file_name").alias(FILE))

    def _header(self, spark: SparkSession, paths: Sequence[str]) -> list[str]:
        """The names in the header, which all files share; Taobao's have a space behind them."""
        headers = {path: first_line(spark, path, self.encoding) for path in paths}
        names = [name.strip() for name in headers[paths[0]].split(self.separator)]
        for path, header in headers.items():
            if header != headers[paths[0]]:
                raise ImporterError(f"{path}: its header is not that of {paths[0]}; are both of the same version?")
        lacking = [name for name in self.columns if name not in names]
        if lacking:
            raise ImporterError(
                f"{paths[0]}: its header has no column {lacking[0]!r}, it is {headers[paths[0]][:200]!r}; is it the published file?"
            )
        return names

    def written(self) -> str:
        """See :class:`Table`."""
        return f"values of {_few(list(self.columns))} with {self.separator!r} between them"


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line."""

    files: Sequence[str]
    columns: Mapping[str, str]
    required: Sequence[str]

    def read(self, spark: SparkSession, paths: Sequence[str]) -> DataFrame:
        """See :class:`Table`."""
        schema = ", ".join(f"`{name}` {kind}" for name, kind in [*self.columns.items(), (MALFORMED, "string")])
        reader = spark.read.schema(schema).options(mode="PERMISSIVE", columnNameOfCorruptRecord=MALFORMED)
        return reader.json(list(paths)).select(*_quoted(self.columns), MALFORMED, F.col("_metadata.file_name").alias(FILE))

    def written(self) -> str:
        """See :class:`Table`."""
        return f"a JSON object with {_few(list(self.columns))}"


@dataclass
class Published:
    """The folder that the user unpacked a published set into.

    Args:
        spark: the session.
        folder: its files lie in it, not in folders below it.
        home: where the set is published, for errors.
    """

    spark: SparkSession
    folder: str
    home: str
    rows: dict[str, int] = field(default_factory=dict)
    """The rows of each table that was read."""
    _kept: list[DataFrame] = field(default_factory=list)

    def files(self, tables: Sequence[Table]) -> list[FileInfo]:
        """The files of those of the tables that are there.

        Raises:
            ImporterError: a file is there both plain and compressed.
        """
        storage = Storage(self.spark)
        return [info for table in tables for path in self._paths(table) for info in storage.files(path)]

    def has(self, table: Table) -> bool:
        """Whether any file of the table is there."""
        return bool(self._paths(table))

    def read(self, table: Table, rules: Mapping[str, Column] | None = None) -> DataFrame:
        """The columns of a table, after all of its lines were checked.

        Args:
            table: The file's place, format and columns.
            rules: what is wrong with a row, in words -> a condition that is true for such rows.

        Raises:
            ImporterError: no such file; it cannot be read, or has no rows; a line is malformed, a required value is empty, a rule
                is broken.
        """
        name = " and ".join(table.files)
        paths = self._paths(table)
        if not paths:
            raise ImporterError(
                f"{self.folder}: no file {' or '.join(table.files)}, plain or with .gz; give the folder that holds the unpacked "
                f"files of {self.home}"
            )
        empty = {f"{column} is empty": F.col(f"`{column}`").isNull() for column in table.required}
        try:
            frame = table.read(self.spark, paths)
            self.rows[name] = self._check(frame, name, table, {**empty, **(rules or {})})
        except (Py4JJavaError, PySparkException) as error:
            raise ImporterError(f"{self.folder}: cannot read {name}: {_reason(error)}; is it whole? Download it again") from error
        return frame.drop(MALFORMED, FILE)

    def keep(self, frame: DataFrame) -> DataFrame:
        """The frame, on the workers' disks until :meth:`release`: for what more than one log is made of."""
        self._kept.append(frame.persist(StorageLevel.DISK_ONLY))
        return frame

    def release(self) -> None:
        """Free the tables that Spark has cached."""
        while self._kept:
            self._kept.pop().unpersist()

    def _paths(self, table: Table) -> list[str]:
        paths = {posixpath.basename(path): path for path in Storage(self.spark).glob(f"{self.folder.rstrip('/')}/*")}
        patterns = [pattern + end for pattern in table.files for end in ("", ".gz")]
        found = sorted(name for name in paths if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
        for name in found:
            if f"{name}.gz" in found:
                raise ImporterError(f"{self.folder}: {name} and {name}.gz are one file; remove one of them")
        return [paths[name] for name in found]

    def _check(self, frame: DataFrame, name: str, table: Table, rules: Mapping[str, Column]) -> int:
        """Count the rows, all of them good."""
        bad = [F.col(MALFORMED).isNotNull(), *[F.col(MALFORMED).isNull() & rule for rule in rules.values()]]
        facts = frame.agg(
            F.count("*").alias("rows"),
            F.min(MALFORMED).alias("line"),
            *[F.count_if(condition).alias(f"count_{i}") for i, condition in enumerate(bad)],
            *[F.min(F.when(condition, F.col(FILE))).alias(f"file_{i}") for i, condition in enumerate(bad)],
        ).first()
        assert facts is not None
        if facts["rows"] == 0:
            raise ImporterError(f"{self.folder}: {name} has no rows; is it whole? Download it again from {self.home}")
        if facts["count_0"]:
            raise ImporterError(
                f"{self.folder}/{facts['file_0']}: {facts['count_0']} of the {facts['rows']} lines of {name} are not "
                f"{table.written()}, one is {facts['line'][:200]!r}; correct or remove them, or download the file again"
            )
        for i, rule in enumerate(rules, start=1):
            if facts[f"count_{i}"]:
                raise ImporterError(
                    f"{self.folder}/{facts[f'file_{i}']}: {rule} in {facts[f'count_{i}']} of the {facts['rows']} rows of {name}; "
                    "correct or remove them, or download the file again"
                )
        return int(facts["rows"])


def first_line(spark: SparkSession, path: str, encoding: str) -> str:
    """The first line of a text file, decompressed as its name says; nothing of an empty file."""
    context: Any = spark.sparkContext
    conf, jvm = context._jsc.hadoopConfiguration(), context._jvm
    place = jvm.org.apache.hadoop.fs.Path(path)
    stream = place.getFileSystem(conf).open(place)
    try:
        codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(conf).getCodec(place)
        plain = stream if codec is None else codec.createInputStream(stream)
        return str(jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(plain, encoding)).readLine() or "")
    finally:
        stream.close()


def _quoted(columns: Mapping[str, str]) -> list[Column]:
    return [F.col(f"`{column}`") for column in columns]


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 12 else f"{', '.join(names[:3])} ... {names[-1]} ({len(names)})"


def _reason(error: Exception) -> str:
    """The innermost cause that Spark or the virtual machine names."""
    lines = str(error).splitlines()
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or lines)[-1 if causes else 0]
