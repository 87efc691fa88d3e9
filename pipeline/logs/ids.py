"""Ids and text in Spark: one form, whatever type a source has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import pandas_udf

from mian.contract.canonical import canonical_text
from pipeline.logs.errors import LogError

IDS = ("impression_id", "user_id", "item_id")

#: In the metadata of an id's column: what it was before it became text.
KIND = "id_kind"
TEXT, WHOLE, FRACTIONAL = "text", "whole", "fractional"

#: Floats tell whole numbers apart below this.
_EXACT = float(2**53)

#: Text that stands for a whole number, and the one way to write it.
_NUMBER = r"^\s*[+-]?[0-9]+(\.0*)?([eE]\+?[0-9]+)?\s*$"
_PLAIN = r"^(0|-?[1-9][0-9]*)$"

#: What to do about ids that do not keep their form.
ID_HINT = "write its expression as trim(...) or CAST(... AS DECIMAL(20, 0)), in all tables alike"

_BLANKS = " \t\r\n\f\u00a0"


def text_of(column: Column, kind: T.DataType) -> Column:
    """A categorical value as text; see :func:`mian.contract.canonical.canonical_text`."""
    if isinstance(kind, (T.FloatType, T.DoubleType)):
        text: Column = _FLOAT_TEXT(column)
        return text
    if isinstance(kind, T.DecimalType):
        return _decimal_text(column, kind)
    return column.cast("string")


def id_of(column: Column, kind: T.DataType) -> tuple[Column, str]:
    """An id as text, and its :data:`KIND`.

    A float is its whole number below 2^53; any other, and a fraction, keeps a text that :func:`id_faults` finds.
    """
    if isinstance(kind, (T.FloatType, T.DoubleType)):
        said = column.cast("string")
        whole = (column == F.floor(column)) & (F.abs(column) < _EXACT) & (said != "-0.0")
        return F.when(whole, column.cast("double").cast("bigint").cast("string")).otherwise(said), FRACTIONAL
    if isinstance(kind, T.DecimalType):
        return _decimal_text(column, kind), FRACTIONAL if kind.scale > 0 else WHOLE
    return column.cast("string"), WHOLE if isinstance(kind, T.IntegralType) else TEXT


def id_faults(frame: DataFrame, name: str) -> list[tuple[str, Column]]:
    """The rules on the form of an id that its type does not keep by itself: each in words, and where a row breaks it."""
    kind = frame.schema[name].metadata.get(KIND, TEXT)
    value = F.col(name)
    if kind == FRACTIONAL:
        return [(f"{name} is no whole number below 2^53", ~value.rlike(r"^-?[0-9]+$"))]
    if kind == TEXT:
        return [
            (f"{name} has blanks around it", F.btrim(value, F.lit(_BLANKS)) != value),
            # what CSV writers make of a whole number where a null lies in its column
            (f"{name} is text of a whole number with a point", value.endswith(".0") & value.rlike(r"^[+-]?[0-9]+\.0$")),
        ]
    return []


def refuse_faults(name: str, frame: DataFrame) -> None:
    """Refuse a table of attributes for the form of an id: its rows have no day whose quarantine they could go to.

    Args:
        name: what to call the table in errors.
        frame: see :func:`pipeline.logs.sources.read_source`.

    Raises:
        LogError: an id breaks a rule of :func:`id_faults`.
    """
    rules = [(column, *rule) for column in IDS if column in frame.columns for rule in id_faults(frame, column)]
    if not rules:
        return
    examples = [F.max(F.when(broken, F.col(column))).alias(words) for column, words, broken in rules]
    found = frame.agg(*examples).collect()[0]
    for _, words, _ in rules:
        if found[words] is not None:
            raise LogError(f"{name}: {words}, such as {found[words][:80]!r}; {ID_HINT}")


class IdColumns:
    """The ids of the tables that were read so far: those that are numbers by type, and those that are text."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}
        self._texts: dict[str, dict[str, DataFrame]] = {}

    def add(self, name: str, frame: DataFrame) -> None:
        """Compare a table's ids with those of the tables before it.

        Args:
            name: what to call the table in errors.
            frame: see :func:`pipeline.logs.sources.read_source`.

        Raises:
            LogError: an id is text that stands for a number but is written otherwise, as in ``0021``, and another table has numbers.
        """
        for column in IDS:
            if column not in frame.columns:
                continue
            if frame.schema[column].metadata.get(KIND, TEXT) != TEXT:
                if self._numbers.setdefault(column, name) == name:
                    self._compare(column, self._texts.get(column, {}))
            elif name not in self._texts.setdefault(column, {}):
                self._texts[column][name] = frame
                if column in self._numbers:
                    self._compare(column, {name: frame})

    def _compare(self, column: str, texts: Mapping[str, DataFrame]) -> None:
        for name, frame in texts.items():
            odd = frame.where(F.col(column).rlike(_NUMBER) & ~F.col(column).rlike(_PLAIN)).select(column).first()
            if odd is not None:
                raise LogError(
                    f"{name}: {column} is text, such as {odd[column][:80]!r}, and in {self._numbers[column]} a whole number, such as "
                    f"{_plain(odd[column])!r}: these never meet. {ID_HINT[0].upper()}{ID_HINT[1:]}"
                )


def _plain(text: str) -> str:
    return str(int(float(text))) if any(sign in text for sign in ".eE") else str(int(text))


def _decimal_text(column: Column, kind: T.DecimalType) -> Column:
    text = column.cast("string")
    return F.rtrim(F.rtrim(text, F.lit("0")), F.lit(".")) if kind.scale > 0 else text


def _float_text(values: pd.Series) -> pd.Series:
    # Java writes some floats with more digits than are needed, and which depends on its release
    return canonical_text(pa.array(values, from_pandas=True)).to_pandas()


_FLOAT_TEXT: Any = pandas_udf(_float_text, T.StringType())  # type: ignore[call-overload]
