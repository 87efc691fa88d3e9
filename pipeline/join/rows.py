"""One table of all that is known of each user: what was shown, clicked and done, and the user's profiles.

Attributes of items and lookups are joined, fields are evaluated, nothing is encoded. The table is what :mod:`pipeline.join` takes
apart by user.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract.document import ID_COLUMN, USER_COLUMN
from pipeline.config import AttributeSource, DataConfig
from pipeline.days import ONE_DAY
from pipeline.hashing import impression_hash
from pipeline.join.field_columns import RoleFields, empty_like, field_expression, is_id, needs_both, own_draws
from pipeline.join.matches import matched_column
from pipeline.logs.attributes import join_attributes, join_lookup
from pipeline.logs.errors import LogError
from pipeline.logs.events import Events
from pipeline.logs.expressions import fits
from pipeline.logs.ids import refuse_faults
from pipeline.logs.reach import reach_back
from pipeline.logs.recorded import HAPPENED, LIST, PLACE
from pipeline.logs.rules import table_fault
from pipeline.logs.sources import CORRUPT, LIST_FAULT, PARTITION_DAY, read_source

#: What a row is; a click can be a behavior too.
ROLE = "_role"
IMPRESSION, CLICK, BEHAVIOR, PROFILE, EARLIER = 1, 2, 4, 8, 16

#: A hash of an impression: of its user, id and day. For its file and its place in there, and for all that is drawn by chance.
ORDER_HASH = "_order_hash"


@dataclass(frozen=True)
class Rows:
    """The table, and which of its columns are of whom.

    Columns: :data:`ROLE`; ``impression_id``, ``user_id``, ``item_id``; ``time``, ``arrived``, ``valid_from``, ``valid_to`` as int64
    microseconds; ``label`` of impressions; the hash; ``_once`` of behaviors; ``_items_known`` of impressions where it matters; of what
    Spark joined whether it found a row (:func:`pipeline.join.matches.matched_column`); of recorded histories
    :data:`pipeline.logs.recorded.LIST` and ``PLACE``; then ``text_0``, ``number_0`` ...: the fields, text or double. A column that a
    role has not is null. A row has fields of its own role alone, so that those of impressions, profiles and behaviors share columns.
    """

    frame: DataFrame
    profile_columns: tuple[str, ...]
    """Fields that come with the user's profiles."""
    places: Mapping[str, str]
    """For each field but time gaps the column that it is in; fields that are an id are in that id's."""
    own_draws: frozenset[str] = frozenset()
    """Where negatives are drawn: fields made of the item and of more than the item, so that a negative's value is a draw of its own.
    A field of the item alone has a value of some other event, one without the item that of its positive."""
    behaviors_need_items: bool = False
    """Whether a field of behaviors is made of what ``items`` says."""


def all_rows(spark: SparkSession, config: DataConfig, events: Events) -> Rows:
    """Bring the events of a range of days, and the profiles of their users, into one table.

    Each kind of event becomes a frame of rows with a role (impression, click, behavior, profile, earlier impression), the fields of that
    role, and the columns that the join by user reads. Their union has one column for each field; see :class:`Rows`.

    Args:
        spark: The session.
        config: The data set.
        events: Its events, checked.

    Raises:
        LogError: a table cannot be used, an expression cannot be evaluated, a numeric field is no number.
    """
    impressions = _with_items(config, events, events.impressions, events.first)
    impressions = _with_lookups(spark, config, events, impressions)
    profiles = None
    if config.users is not None:
        profiles = _table(events, "users", config.users, events.first)
        if needs_both(config, empty_like(impressions.drop("label")), empty_like(profiles)):
            impressions = _joined(impressions, profiles, config.users, "user_id", "users")
            profiles = None
    visible = empty_like(impressions.drop("label"))  # no field may be made of it
    known = empty_like(profiles) if profiles is not None else None
    impression_fields, profile_fields = RoleFields(), RoleFields()
    for column, group, field in config.columns():
        text, where = field_expression(column, group, field)
        if group != "behaviors":
            is_profile = known is not None and not is_id(text, field) and not fits(visible, text)
            (profile_fields if is_profile else impression_fields).add(
                column, field, text, where, known if known is not None and is_profile else visible
            )
    behaviors = _with_items(config, events, events.behaviors, events.first - reach_back(config))
    if HAPPENED in behaviors.columns:  # attributes were looked up at the impression's time
        behaviors = behaviors.withColumn("time", F.col(HAPPENED)).drop(HAPPENED)
    behavior_fields, like, bare = RoleFields(), empty_like(behaviors), empty_like(events.behaviors)
    for column, group, field in config.columns():
        if group == "behaviors" and field.kind != "time_gap":
            text, where = field_expression(column, group, field)
            behavior_fields.add(column, field, text, where, like)
    parts = [
        _impressions(config, impressions, impression_fields),
        *_behaviors_and_clicks(config, events, behaviors, behavior_fields),
    ]
    if profiles is not None:
        moments = _moments(profiles, "valid_from", "valid_to", "arrived")
        parts.append(profiles.select(F.lit(PROFILE).alias(ROLE), "user_id", *moments, *profile_fields.columns))
    frame = functools.reduce(lambda above, below: above.unionByName(below, allowMissingColumns=True), parts)
    places = {**impression_fields.places, **profile_fields.places, **behavior_fields.places}
    need_items = any(
        group == "behaviors" and field.kind != "time_gap" and not fits(bare, field_expression(column, group, field)[0])
        for column, group, field in config.columns()
    )
    return Rows(frame, tuple(profile_fields.places), places, own_draws(config, visible), need_items)


def _with_lookups(spark: SparkSession, config: DataConfig, events: Events, impressions: DataFrame) -> DataFrame:
    """Impressions with the columns of all lookups."""
    for i, lookup in enumerate(config.lookups):
        name = f"lookups.{i}"
        table = _unbroken(read_source(spark, name, lookup), name)
        refuse_faults(name, table)
        events.ids.add(name, table)
        table = table.withColumn(matched_column(name), F.lit(True))
        impressions = join_lookup(impressions, table, lookup.keys, name)
    return impressions


def _impressions(config: DataConfig, impressions: DataFrame, fields: RoleFields) -> DataFrame:
    sources = {"items": config.items, "users": config.users}
    wanted = [f"_{name}_known" for name, source in sources.items() if source is not None and source.missing == "quarantine"]
    return impressions.select(
        F.lit(IMPRESSION).alias(ROLE),
        ID_COLUMN,
        "user_id",
        "item_id",
        *_moments(impressions, "time"),
        *[c for c in ("label", *wanted, *_matched(config)) if c in impressions.columns],
        F.xxhash64("user_id").alias(USER_COLUMN),
        impression_hash(config.calendar, config.seed).alias(ORDER_HASH),
        *fields.columns,
        *[LIST] * (LIST in impressions.columns),
    )


def _matched(config: DataConfig) -> list[str]:
    return [matched_column(name) for name in ("items", "users", *(f"lookups.{i}" for i in range(len(config.lookups))))]


def _behaviors_and_clicks(config: DataConfig, events: Events, behaviors: DataFrame, fields: RoleFields) -> list[DataFrame]:
    twice = events.clicks is not None and not config.log.has_behaviors  # then a behavior is a click, and comes once
    names = (ID_COLUMN, "user_id", "item_id", "action", "_once", LIST, PLACE, matched_column("items"))
    ids = [c for c in names if c in behaviors.columns]
    role = F.lit(BEHAVIOR | CLICK * twice).alias(ROLE)
    parts = [behaviors.select(role, *ids, *_moments(behaviors, "time", "arrived"), *fields.columns)]
    if events.clicks is not None:
        ids = [c for c in (ID_COLUMN, "user_id", "item_id") if c in events.clicks.columns]
        clicks = events.clicks
        if twice:  # those after the last day, which are labels and nothing else
            clicks = clicks.where(F.col("time") >= F.expr(config.calendar.start_sql(events.last + ONE_DAY)))
        parts.append(clicks.select(F.lit(CLICK).alias(ROLE), *ids, *_moments(clicks, "time")))
    if events.earlier is not None:
        earlier = events.earlier
        parts.append(earlier.select(F.lit(EARLIER).alias(ROLE), ID_COLUMN, "user_id", "item_id", *_moments(earlier, "time")))
    return parts


def _with_items(config: DataConfig, events: Events, rows: DataFrame, first: dt.date) -> DataFrame:
    """Rows of days from ``first`` on with what ``items`` says of them."""
    if config.items is None:
        return rows
    return _joined(rows, _table(events, "items", config.items, first), config.items, "item_id", "items")


def _joined(events: DataFrame, table: DataFrame, source: AttributeSource, key: str, name: str) -> DataFrame:
    """Add what was known at the time, and whether the table has a row of the key at all."""
    joined = join_attributes(events, table, source, key, name)
    if "valid_from" not in source.columns:
        return joined.withColumn(matched_column(name), F.col(f"_{name}_known"))
    return joined.join(table.select(key).distinct().withColumn(matched_column(name), F.lit(True)), key, "left")


def _table(events: Events, name: str, source: AttributeSource, first: dt.date) -> DataFrame:
    """What is known of users or items at the times of events from a day on."""
    frame = events.tables[name]
    if source.day_column is not None and source.reach is not None:
        frame = frame.where((F.col(PARTITION_DAY) >= F.lit(first - source.reach)) | F.col(PARTITION_DAY).isNull())
    frame = _unbroken(frame, name)
    fault = table_fault(frame, "user_id" if name == "users" else "item_id")
    return frame.where(fault.isNull()).select(*source.columns)


def _unbroken(frame: DataFrame, name: str) -> DataFrame:
    """A table none of whose lines is broken: unlike an event's, such a line has no day whose quarantine it could go to.

    A list that is null, or an element of one that is, says nothing and gives no row.

    Raises:
        LogError: one is.
    """
    if LIST_FAULT in frame.columns:
        frame = frame.where(F.col(LIST_FAULT).isNull()).drop(LIST_FAULT)
    if CORRUPT not in frame.columns:
        return frame
    broken = frame.where(F.col(CORRUPT).isNotNull()).agg(F.count("*"), F.first(F.substring(CORRUPT, 1, 80))).collect()[0]
    if broken[0]:
        raise LogError(
            f"{name}: {broken[0]} of its lines cannot be parsed, such as {broken[1]!r}; correct its schema and options, or the lines, "
            "or skip such lines with `options: {mode: DROPMALFORMED}`"
        )
    return frame.drop(CORRUPT)


def _moments(frame: DataFrame, *names: str) -> list[Column]:
    """Timestamps as int64 microseconds since 1970-01-01 UTC; those that the frame has."""
    return [F.unix_micros(name).alias(name) for name in names if name in frame.columns]
