"""Expressions of a configuration, over the columns of a log."""

from __future__ import annotations

import re

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.logs.determinism import beyond_the_row, changing_part
from pipeline.logs.errors import LogError, first_line

#: An expression that is a column and nothing else.
_COLUMN = re.compile(r"`[^`]+`")

#: An expression that is a name; Spark takes some for functions where no column has it.
_NAME = re.compile(r"`[^`]+`|\w+")

#: Spark's name for a column of CSV files that has none.
NAMELESS = re.compile(r"_c\d+")


def evaluate(frame: DataFrame, where: str, expression: str | Column) -> Column:
    """An expression over a frame's columns, checked at once.

    Raises:
        LogError: a column is not there, Spark does not accept the expression, or its value differs from run to run; ``where`` names its
            place in the configuration.
    """
    if isinstance(expression, str) and _is_column(frame, expression):
        return F.col(expression)  # checking it would take Spark some thirty milliseconds
    if isinstance(expression, str) and not _NAME.fullmatch(expression) and expression in frame.columns:
        raise LogError(f'{where}: {expression!r} is a column, and no expression: write it in backticks, as "`{expression}`"')
    column = F.expr(expression) if isinstance(expression, str) else expression
    text = expression if isinstance(expression, str) else ""
    try:
        with_it = frame.select("*", column)  # alone, an aggregate over all rows would be accepted
    except AnalysisException as error:
        raise LogError(f"{where}: {first_line(error)}; {columns_of(frame)}") from error
    beyond = beyond_the_row(frame, text) if text else None
    if beyond is not None:
        raise LogError(
            f"{where}: {text!r} is not made of the row alone: {beyond} reads other rows, which may have come later, or makes several "
            "rows of one; bring such a value along in a table that says from when it was known, and explode lists with the source's "
            "`explode`"
        )
    changing = changing_part(with_it, text)
    if changing is not None:
        if _NAME.fullmatch(text):
            raise LogError(f"{where}: no column {text}, which Spark takes for its function {changing}; {columns_of(frame)}")
        file = "; _metadata.file_path is the file of a row" if changing.startswith("input_file") else ""
        raise LogError(
            f"{where}: {text!r} is not made of the row alone: {changing} draws chance, or depends on the clock or the session, and a "
            f"day that is built again has to come out the same; write it with columns of the row{file}"
        )
    return column


def fits(frame: DataFrame, expression: str) -> bool:
    """Whether an expression can be evaluated over a frame's columns, and over nothing else."""
    if _COLUMN.fullmatch(expression):
        if expression[1:-1] in frame.columns:
            return True
        if expression[1:-1].lower() not in map(str.lower, frame.columns):
            return False  # as Spark would say, some fifty milliseconds later
    try:
        with_it = frame.select(F.expr(expression))
        return beyond_the_row(frame, expression) is None and changing_part(with_it, expression) is None
    except AnalysisException:
        return False


def _is_column(frame: DataFrame, expression: str) -> bool:
    """Whether an expression is the name of one column, and so no function."""
    name = expression.strip("`")
    return bool(_NAME.fullmatch(expression)) and [c for c in frame.columns if c.lower() == name.lower()] == [name]


def columns_of(frame: DataFrame) -> str:
    """The columns of a log, for an error: their names, or what to say so that they can be read."""
    names = sorted(c for c in frame.columns if not c.startswith("_") or NAMELESS.fullmatch(c))
    if any(sign in c for c in names for sign in "\0\ufffd"):
        return (
            "the columns there have names that are not UTF-8 text: say how the files are encoded, as in "
            "`options: {encoding: UTF-16, multiLine: true}`"
        )
    available = f"the columns there are {', '.join(c if _NAME.fullmatch(c) else repr(c) for c in names)}"
    if any(map(NAMELESS.fullmatch, names)):
        return f"{available}; where the files' first line says their names, say `options: {{header: true}}`"
    return available
