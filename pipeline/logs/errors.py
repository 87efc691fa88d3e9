"""What is wrong with a log, in one sentence; also where Spark says it on three pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipeline.config import DataConfig, column_place

#: Part of what Spark says of a log that it cannot read -> what to do.
_REMEDIES = {
    "TIMESTAMP(NANOS": "give spark-submit `--conf spark.sql.legacy.parquet.nanosAsLong=true`, and the moment the expression "
    "timestamp_micros(... DIV 1000)",
    "COLUMN_ALREADY_EXISTS": "write the files anew, or give spark-submit `--conf spark.sql.caseSensitive=true` where these are two",
    "CONFLICTING_PARTITION_COLUMN_NAMES": "bring the folders to one name, or take away what is of another table",
    "PARQUET_COLUMN_DATA_TYPE_MISMATCH": "a column has one type in all files of a log: write this one anew",
    "CSV header": "the first line of each file has the columns of the schema in its order; leave the schema out where files differ, so "
    "that each is read by its own first line",
    "FILE_NOT_EXIST": "the log changed while it was read: build again",
}
_SQLSTATE = re.compile(r"\s*SQLSTATE: \w+")
#: The line of an expression that fails on a row: it has a heading above, and signs under the part that is meant.
_EXPRESSION = re.compile(r"^== SQL[^\n]*==\n(.*)\n\s*\^+\s*$", flags=re.MULTILINE)
_FILE = re.compile(r"\[FAILED_READ_FILE\.\w+\] Encountered error while reading file (\S+)\. (.*)")
_STACK = re.compile(r"\s+at \S|\s+\.\.\. \d+ more|Driver stacktrace:")
#: What would make Spark give nulls in silence.
_BAD_ADVICE = 'If necessary set "spark.sql.ansi.enabled" to "false" to bypass this error.'


class LogError(ValueError):
    """A log that cannot be used: which one, what is wrong, what to do."""


@contextmanager
def log_errors(config: DataConfig) -> Iterator[None]:
    """Turn what Spark finds wrong only when it reads the rows of a log into a :class:`LogError`.

    Args:
        config: the data set that is worked on.

    Raises:
        LogError: in place of Spark's error.
    """
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise _log_error(error, config) from error


def refuse_unreachable(spark: SparkSession, config: DataConfig) -> None:
    """Refuse paths that Java would look for under other names.

    Raises:
        LogError: a path has characters beyond ASCII, and Java was started in a locale that has none.
    """
    jvm: Any = spark.sparkContext._jvm
    paths = {f"{name}.path": source.path for name, source, _ in config.sources()} | {"samples": config.samples}
    beyond = [(place, path) for place, path in paths.items() if path is not None and not path.isascii()]
    if beyond and "UTF" not in str(jvm.java.lang.System.getProperty("sun.jnu.encoding")).upper():
        raise LogError(
            f"{beyond[0][0]}: Java cannot reach {beyond[0][1]} in this locale: start with LC_ALL=C.UTF-8 in the environment, of the "
            "cluster's machines too, or with SPARK_CONF_DIR=conf/spark, which says so"
        )


def spark_words(error: Exception) -> str:
    """What an error of Spark says, on one line: its first cause, without the stack of the cluster."""
    text = "\n".join(line for line in str(error).splitlines() if not _STACK.match(line))
    cause = re.split(r"^Caused by: ", text, flags=re.MULTILINE)[-1]
    cause = re.split(r"\s*SQLSTATE: |\n\s*Suppressed: ", cause)[0]  # behind it come the plan and the expression
    cause = re.sub(r"^An error occurred while calling \S+\.\s+: ", "", cause)
    python_errors = re.findall(r"^[A-Za-z][\w.]*(?:Error|Exception|Invalid)\b.*", cause, flags=re.MULTILINE)
    if "Traceback (most recent call last)" in cause and python_errors:
        cause = python_errors[-1]
    return _short(re.sub(r"^\s*(?:\w+\.)+(?=\w+: )", "", cause)).rstrip(".") or type(error).__name__


def remedy(text: str, otherwise: str) -> str:
    """What to do about an error of Spark."""
    return next((words for sign, words in _REMEDIES.items() if sign in text), otherwise)


def first_line(error: Exception) -> str:
    """What an error of Spark says first."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return _short(_SQLSTATE.split(lines[0])[0]).rstrip(".")


def _log_error(error: PySparkException | Py4JError, config: DataConfig) -> LogError:
    """It names the file, or the place of the expression in the configuration, where Spark says which it was."""
    text, said = str(error), spark_words(error)
    expression = _EXPRESSION.search(text)
    if expression is not None:
        line = expression[1].strip()
        places = [place for place, known in _expressions(config) if line in map(str.strip, known.splitlines())]
        return LogError(f"{', '.join(places) or 'an expression'}: {_short(line)!r} fails on a row: {said}")
    file = _FILE.search(text)
    if file is not None:
        said = _short(file[2]).rstrip(".") or said
        advice = remedy(text, "the file is damaged, or of another kind: write it anew or take it away")
        return LogError(f"{_place_of(config, file[1])}: cannot read {file[1]}: {said}; {advice}")
    if "long overflow" in said:
        places = [place for place, known in _expressions(config) if "timestamp_" in known]
        return LogError(
            f"{', '.join(places) or 'an expression'}: a number is too great for a moment ({said}); is its unit right?"
        )
    for name, source, _ in config.sources():
        place = urlsplit(source.path or "")
        if source.table is not None and "`" + source.table.replace(".", "`.`") + "`" in text:
            return LogError(f"{name}: no table {source.table!r} that can be read: {said}")
        if f'scheme "{place.scheme}"' in said or (place.hostname or " ") in said.split():
            return LogError(
                f"{name}: cannot reach {source.path}: {said}; correct {name}.path, or what the cluster knows of such paths"
            )
    return LogError(f"Spark could not work on the logs: {said}")


def _expressions(config: DataConfig) -> Iterator[tuple[str, str]]:
    """All expressions of a data set, and their places in its configuration."""
    for name, source, _ in config.sources():
        columns = config.log.impression_source.columns if name == "log.impressions" else source.columns
        yield from ((column_place(name, column), text) for column, text in columns.items())
        yield from ((f"{name}.{key}", text) for key in ("where", "explode") if (text := getattr(source, key)) is not None)
    for group, fields in config.fields:
        yield from ((f"fields.{group}.{name}", field.expression) for name, field in fields.items() if field.expression)


def _place_of(config: DataConfig, file: str) -> str:
    """The place in the configuration of the table that a file is of."""
    plain = unquote(re.sub("^file:/+", "/", file))
    paths = {name: re.sub("^file:/+", "/", source.path) for name, source, _ in config.sources() if source.path is not None}
    fitting = [(len(path), name) for name, path in paths.items() if re.split(r"[*?\[{]", path)[0] in plain]
    return max(fitting)[1] if fitting else "a log"


def _short(text: str) -> str:
    """One line of printable characters, of a length that is read."""
    line = " ".join(_SQLSTATE.sub("", text).replace(_BAD_ADVICE, "").split())
    line = "".join(c if c.isprintable() else "\ufffd" for c in line)
    return line if len(line) <= 600 else f"{line[:300]} ... {line[-300:]}"  # which folders, or columns, comes last
