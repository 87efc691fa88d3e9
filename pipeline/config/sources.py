"""Tables: where they lie and what their columns are called here."""

from __future__ import annotations

import datetime as dt
import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: No span of a configuration is longer: a greater number is in another unit.
LONGEST_DAYS = 36_500
LONGEST_HOURS = 24 * LONGEST_DAYS

#: The columns that hold the lists of a recorded history begin so; see :class:`pipeline.config.RecordedHistory`.
RECORDED = "_recorded_"


def column_place(source: str, column: str) -> str:
    """The place in the configuration of the expression of a source's column."""
    name = column.removeprefix(RECORDED)
    if name == column:
        return f"{source}.columns.{column}"
    key = {"item_id": "items", "time": "times"}.get(name, f"columns.{name}")
    return f"log.behaviors.{key}"


class Strict(BaseModel):
    """An unknown key is an error, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """A table of files (``path``) or of Spark's catalog (``table``)."""

    path: str | None = None
    """A file, a folder or a pattern, of any file system that the cluster's Hadoop reaches. What is there by its very name is no pattern."""
    table: str | None = None
    """A table or view by its name: ``shop.impressions``."""
    format: Literal["parquet", "csv", "json", "orc"] = "parquet"
    """``json`` is one object a line."""
    options: dict[str, str | bool | int] = Field({})
    """Options of Spark's reader, such as ``header: true``. CSV has ``escape: '"'`` where it is not given: a quote inside is doubled."""
    table_schema: str | None = Field(None, alias="schema")
    """A DDL string for formats that do not carry their types: ``user_id STRING, ts BIGINT``."""
    columns: dict[str, str]
    """Name here -> Spark SQL expression over the source's own columns."""
    where: str | None = None
    """A Spark SQL condition over the source's own columns."""
    explode: str | None = None
    """For a table whose rows hold lists, such as pages of shown items: a Spark SQL expression over the source's own columns that gives
    an array. Each element becomes a row. ``columns`` and ``where`` may also use ``element`` (of structs: ``element.item``) and
    ``position``, which counts from 0. An empty list gives no row; a list that is null, or an element that is, breaks a rule."""
    day_column: str | None = None
    """A partition column with the date of ``time``, in ``day_time_zone``; only the days that are needed are then read."""
    late_days: int = Field(0, ge=0, le=LONGEST_DAYS)
    """A row may lie in the partition of a day up to so many days after its ``time``, as where partitions are of arrival."""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.path is None) == (self.table is None):
            raise ValueError("a source has either a path or a table")
        if self.table is not None and (self.options or self.table_schema is not None or "format" in self.model_fields_set):
            raise ValueError("a table of the catalog has a format, options and a schema of its own: leave them out")
        if self.late_days and self.day_column is None:
            raise ValueError("late_days says how late a row may be in its day_column, and there is none")
        return self

    @property
    def place(self) -> str:
        """Where it lies, for errors."""
        return self.path if self.path is not None else f"table {self.table}"


class AttributeSource(Source):
    """What is known of a user or an item, at all times or as of some.

    Special columns, all timestamps and all optional: ``valid_from``, ``valid_to``, ``arrived``. Of the rows with
    ``valid_from < time`` and ``arrived < time`` the one with the greatest ``valid_from`` (of several the one that arrived last, which
    corrects the others) is what is known at ``time``. Where its
    ``valid_to`` is at or before ``time``, or it is older than ``max_age_days``, nothing is known.
    """

    max_age_days: float | None = Field(None, gt=0, le=LONGEST_DAYS)
    """A row counts for so long after its ``valid_from``; for ever where it is not given. With a ``day_column``, which is then the
    date of ``valid_from``, older partitions are not read."""
    missing: Literal["unknown", "quarantine"] = "unknown"
    """An impression of which nothing is known has missing attributes, or goes to the quarantine."""

    @model_validator(mode="after")
    def _dated(self) -> AttributeSource:
        for name in ("valid_to", "arrived"):
            if name in self.columns and "valid_from" not in self.columns:
                raise ValueError(f"column {name} needs a column valid_from")
        if self.max_age_days is not None and "valid_from" not in self.columns:
            raise ValueError("max_age_days needs a column valid_from")
        return self

    @property
    def reach(self) -> dt.timedelta | None:
        """How far before a day the partitions lie that can matter to it; None where any can."""
        if self.day_column is None or self.max_age_days is None:
            return None
        return dt.timedelta(days=math.ceil(self.max_age_days) + 1)

    @property
    def attributes(self) -> list[str]:
        """Its columns but for the key's and those that say when."""
        return [c for c in self.columns if c not in ("user_id", "item_id", "valid_from", "valid_to", "arrived")]


class Lookup(Source):
    """Columns joined to the impressions by equality on ``keys``; of rows with one key the greatest counts."""

    keys: list[str]
    """Columns of impressions that pick a row of this table; it has columns of the same names."""
