"""The fields of samples as columns of Spark: raw values, text or double."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, MapType, NumericType, StringType, StructType, VariantType

from mian.contract.canonical import LONGEST_VALUE
from pipeline.config import DataConfig, FieldConfig
from pipeline.logs.errors import LogError
from pipeline.logs.expressions import evaluate, fits
from pipeline.logs.ids import text_of

#: Columns that a field may be without being copied.
_IDS = ("user_id", "item_id")


class RoleFields:
    """The fields of one role: ``places`` as in :class:`pipeline.join.rows.Rows`, and the columns that they make."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self.columns: list[Column] = []
        self._made = {"text": 0, "number": 0}

    def add(self, column: str, field: FieldConfig, text: str, where: str, frame: DataFrame) -> None:
        """Add a field: an id, or an expression over a frame.

        Raises:
            LogError: see :func:`field_column`.
        """
        if is_id(text, field):
            self.places[column] = text.strip("`")
            return
        kind = "text" if field.kind == "categorical" else "number"
        self.places[column] = f"{kind}_{self._made[kind]}"
        self._made[kind] += 1
        self.columns.append(field_column(frame, where, text, field).alias(self.places[column]))


def is_id(text: str, field: FieldConfig) -> bool:
    """Whether a field is a user's or an item's id, whose column it shares."""
    return field.kind == "categorical" and text.strip("`") in _IDS


def empty_like(frame: DataFrame) -> DataFrame:
    """A frame of the same columns and no rows, over which expressions are checked without planning all that is behind the frame."""
    return frame.sparkSession.createDataFrame([], frame.schema)


def needs_both(config: DataConfig, impressions: DataFrame, profiles: DataFrame) -> bool:
    """Whether a field is made of columns of both, which Spark then has to join; else profiles come along to the join by user."""
    texts = [field_expression(column, group, field)[0] for column, group, field in config.columns() if group != "behaviors"]
    return any(not fits(impressions, text) and not fits(profiles, text) for text in texts)


def own_draws(config: DataConfig, impressions: DataFrame) -> frozenset[str]:
    """See :class:`pipeline.join.rows.Rows`; ``impressions`` has the columns that fields can be made of."""
    if config.log.kind != "positives_only":
        return frozenset()
    item_columns = {"item_id", *(config.items.attributes if config.items is not None else [])}
    dependent = set(item_columns)
    for lookup in config.lookups:
        added = set(lookup.columns) - set(lookup.keys)
        dependent |= added if dependent & set(lookup.keys) else set()
        item_columns |= added if item_columns >= set(lookup.keys) else set()
    item = impressions.select(*[c for c in impressions.columns if c in item_columns])
    others = impressions.select(*[c for c in impressions.columns if c not in dependent])
    for column, group, field in config.columns():
        text, where = field_expression(column, group, field)
        if group == "candidate" and fits(others, text) and not fits(item, text):
            raise LogError(
                f"{where}: it is made of columns of log.impressions, which say something of the item that was shown; a drawn negative is "
                "another item. Bring what is known of items along in a table `items`, or, where it says nothing of the item, make it a "
                "field of context"
            )
    return frozenset(
        column
        for column, group, field in config.columns()
        if group != "behaviors" and fits(impressions, text := field_expression(column, group, field)[0])
        if not fits(item, text) and not fits(others, text)
    )


def field_expression(column: str, group: str, field: FieldConfig) -> tuple[str, str]:
    """A field's expression, and its place in the configuration."""
    name = column.split("_", 1)[1]
    return field.expression if field.expression is not None else f"`{name}`", f"fields.{group}.{name}"


def field_column(frame: DataFrame, where: str, text: str, field: FieldConfig) -> Column:
    """A field's raw value over the joined columns: string, or double.

    Raises:
        LogError: the expression cannot be evaluated, a numeric field is no number, or a categorical one has parts.
    """
    column = evaluate(frame, where, text)
    kind = frame.select(column.alias("value")).schema["value"].dataType
    if field.kind == "categorical":
        if isinstance(kind, (ArrayType, MapType, StructType, VariantType)):
            raise LogError(
                f"{where}: a categorical field is {kind.simpleString()}, which is many values; give it an expression that picks or "
                f"joins them, such as try_element_at({text}, 1) or array_join({text}, ',') of an array"
            )
        value = text_of(column, kind)
        if not isinstance(kind, (StringType, BinaryType)):
            return value
        return F.when((F.octet_length(value) <= LONGEST_VALUE) & F.is_valid_utf8(value), value)
    if not isinstance(kind, NumericType):
        raise LogError(
            f"{where}: a numeric field is {kind.simpleString()}; give it an expression such as try_cast({text} AS DOUBLE), "
            "or make the field categorical"
        )
    return column.cast("double")
