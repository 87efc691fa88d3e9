"""Tables whose lines are Python's dictionaries: single quotes, ``None``; what ``repr`` writes, and no JSON."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.importers.published_files import FILE, MALFORMED

_TYPES = {
    "string": pa.string(),
    "double": pa.float64(),
    "array<array<string>>": pa.list_(pa.list_(pa.string())),
}


@dataclass(frozen=True)
class PythonLines:
    """One dictionary a line. It is parsed, never executed."""

    files: Sequence[str]
    columns: Mapping[str, str]
    """Keys -> ``string``, ``double`` or ``array<array<string>>``; a dictionary without a key has null."""
    required: Sequence[str]

    def read(self, spark: SparkSession, paths: Sequence[str]) -> DataFrame:
        """See :class:`pipeline.importers.published_files.Table`."""
        lines = spark.read.text(list(paths)).where(F.trim("value") != "")
        kinds = [*self.columns.items(), (MALFORMED, "string"), (FILE, "string")]
        schema = ", ".join(f"`{name}` {kind}" for name, kind in kinds)
        parse = functools.partial(_parse, dict(self.columns))
        return lines.select("value", F.col("_metadata.file_name").alias(FILE)).mapInArrow(parse, schema)

    def written(self) -> str:
        """See :class:`pipeline.importers.published_files.Table`."""
        return f"a Python dictionary with {', '.join(self.columns)}"


def _parse(columns: Mapping[str, str], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        lines, files = (batch.column(i).to_pylist() for i in range(2))
        rows = [_row(columns, line) for line in lines]
        values = {name: pa.array([row and row[name] for row in rows], _TYPES[kind]) for name, kind in columns.items()}
        values[MALFORMED] = pa.array([line if row is None else None for row, line in zip(rows, lines, strict=True)], pa.string())
        values[FILE] = pa.array(files, pa.string())
        yield pa.RecordBatch.from_pydict(values)


def _row(columns: Mapping[str, str], line: str) -> dict[str, Any] | None:
    """The values of a line, or None if it is not what it should be."""
    try:
        values = ast.literal_eval(line.strip())
        if not isinstance(values, dict):
            return None
        return {name: _value(kind, values.get(name)) for name, kind in columns.items()}
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return None


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "double":
        return float(value)
    if kind == "string":
        if not isinstance(value, str):
            raise TypeError(value)
        return value
    return [[_value("string", part) for part in path] for path in value]
