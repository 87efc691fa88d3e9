"""The fields of the configuration: their expressions, and over which joined columns each is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StructField, StructType

from mian.contract import Contract, Field
from pipeline.audit.tables import Tables
from pipeline.config import DataConfig, FieldConfig
from pipeline.logs.expressions import evaluate, fits
from pipeline.logs.ids import text_of

#: Bytes of a value; a longer one of a categorical field is unknown, and so is one that is not UTF-8.
LONGEST_VALUE = 1_000

ITEM_KNOWN, USER_KNOWN = "_items_known", "_users_known"


@dataclass(frozen=True)
class Member:
    """One field: the configuration's word, and the contract's."""

    column: str
    config: FieldConfig
    contract: Field

    @property
    def name(self) -> str:
        """Its name within its group."""
        return self.column.split("_", 1)[1]

    @property
    def text(self) -> str:
        """The Spark SQL expression of the field."""
        return self.config.expression if self.config.expression is not None else f"`{self.name}`"

    @property
    def vocabulary(self) -> str:
        """The vocabulary of a categorical field."""
        return self.config.vocabulary or self.name

    @property
    def is_time_gap(self) -> bool:
        """Whether it is the time from a behavior to the impression, which no expression says."""
        return self.config.kind == "time_gap"

    def value(self, frame: DataFrame) -> Column:
        """Its raw value over joined columns: text, or double.

        Raises:
            LogError: the expression cannot be evaluated.
        """
        column = evaluate(frame, f"fields.{self.contract.group}.{self.name}", self.text)
        if self.config.kind == "categorical":
            text = text_of(column, frame.select(column.alias("value")).schema["value"].dataType)
            return F.when((F.octet_length(text) <= LONGEST_VALUE) & F.is_valid_utf8(text), text)
        return column.cast("double")


@dataclass(frozen=True)
class Members:
    """All fields that both the configuration and the contract know, by what their values are made of.

    ``shown``: of the impression, its item, lookups, and, where ``users_joined``, its user. ``profile``: of the user's row alone.
    ``behaviors``: of the behavior and its item. ``item_free``: columns of ``shown`` that are the same for another item. ``item_only``:
    columns of ``shown`` that are the same for another impression of the item.
    """

    shown: tuple[Member, ...]
    profile: tuple[Member, ...]
    behaviors: tuple[Member, ...]
    users_joined: bool
    item_free: frozenset[str]
    item_only: frozenset[str]

    @property
    def gaps(self) -> tuple[Member, ...]:
        """The fields that are time gaps of behaviors."""
        return tuple(member for member in self.behaviors if member.is_time_gap)

    @property
    def behavior_values(self) -> tuple[Member, ...]:
        """The behaviors' fields that have an expression."""
        return tuple(member for member in self.behaviors if not member.is_time_gap)

    @property
    def all(self) -> tuple[Member, ...]:
        """All fields that have an expression."""
        return (*self.shown, *self.profile, *self.behaviors)


def members(config: DataConfig, contract: Contract, tables: Tables) -> Members:
    """Find out what each field is made of."""
    known = {field.column: field for field in contract.fields}
    both = [Member(column, field, known[column]) for column, _, field in config.columns() if column in known]
    behaviors = tuple(member for member in both if member.contract.group == "behaviors")
    others = [member for member in both if member.contract.group != "behaviors"]
    spark = tables.impressions.sparkSession
    without_users = spark.createDataFrame([], StructType(_joined(tables, config, item=True)))
    if tables.users is None or config.users is None:
        free = _item_free(tables, config, others, users=False)
        return Members(tuple(others), (), behaviors, False, free, _item_only(tables, config, others))
    users = tables.users.select(*config.users.columns)
    profile = [member for member in others if not fits(without_users, member.text)]
    joined = any(not fits(users, member.text) for member in profile)
    shown_members = tuple(member for member in others if joined or member not in profile)
    free = _item_free(tables, config, shown_members, users=joined)
    return Members(
        shown_members, () if joined else tuple(profile), behaviors, joined, free, _item_only(tables, config, shown_members)
    )


def _joined(tables: Tables, config: DataConfig, *, item: bool) -> list[StructField]:
    """The columns of an impression with what is joined to it; without ``item`` those that another item would leave as they are."""
    left_out = {"_user_key", "_micros"} | (set() if item else {"item_id"})
    fields = [field for field in tables.impressions.schema.fields if field.name not in left_out]
    if config.items is not None and tables.items is not None and item:
        fields += [field for field in tables.items.schema.fields if field.name in config.items.attributes]
        fields.append(StructField(ITEM_KNOWN, BooleanType()))
    for lookup, frame in zip(config.lookups, tables.lookups, strict=True):
        if item or "item_id" not in lookup.keys:
            fields += [field for field in frame.schema.fields if field.name not in lookup.keys]
    return fields


def _item_free(tables: Tables, config: DataConfig, shown: list[Member] | tuple[Member, ...], *, users: bool) -> frozenset[str]:
    fields = _joined(tables, config, item=False)
    if users and config.users is not None and tables.users is not None:
        fields += [field for field in tables.users.schema.fields if field.name in config.users.attributes]
    bare = tables.impressions.sparkSession.createDataFrame([], StructType(fields))
    return frozenset(member.column for member in shown if fits(bare, member.text))


def _item_only(tables: Tables, config: DataConfig, shown: list[Member] | tuple[Member, ...]) -> frozenset[str]:
    fields = [field for field in tables.impressions.schema.fields if field.name == "item_id"]
    if config.items is not None and tables.items is not None:
        fields += [field for field in tables.items.schema.fields if field.name in config.items.attributes]
    for lookup, frame in zip(config.lookups, tables.lookups, strict=True):
        if {field.name for field in fields} >= set(lookup.keys):
            fields += [field for field in frame.schema.fields if field.name not in lookup.keys]
    bare = tables.impressions.sparkSession.createDataFrame([], StructType(fields))
    return frozenset(member.column for member in shown if fits(bare, member.text))
