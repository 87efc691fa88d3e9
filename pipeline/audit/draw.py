"""Drawing rows, and collecting all that the logs say of their users and items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract import UNKNOWN_ID
from pipeline.audit.published_samples import Published
from pipeline.audit.raw_fields import Member, Members
from pipeline.audit.tables import DAY_MICROS, HOUR_MICROS, MICROS, USER_KEY, Tables
from pipeline.config import DataConfig
from pipeline.logs.rules import DAY


@dataclass(frozen=True)
class Drawn:
    """A row to look at: of the samples, or of the log (then ``held`` is None where the samples do not have it).

    ``day`` counts as text; ``base_id`` is the id in the log: that of the positive where the row is a drawn negative, whose ``item`` is
    what its columns say it is (None where they do not).
    """

    user: int
    impression_id: str
    day: str
    base_id: str
    negative: bool
    item: str | None
    held: Mapping[str, Any] | None


@dataclass(frozen=True)
class Facts:
    """What the logs say of the drawn rows' users and items, as collected, in tables of the logs' own columns.

    ``sold`` has ``item_id`` and :data:`MICROS` of the events with items of drawn negatives, in the hours before those and on their days.
    """

    impressions: pa.Table
    clicks: pa.Table | None
    behaviors: pa.Table
    users: pa.Table | None
    items: pa.Table | None
    sold: pa.Table | None


def draw(published: Published, tables: Tables, config: DataConfig, fields: Members, rows: int, seed: int) -> list[Drawn]:
    """Draw ``rows`` samples and as many impressions of the log, by the hash of their ids and the seed."""
    spark = published.samples.sparkSession
    samples = published.samples
    chosen = samples.orderBy(F.xxhash64("impression_id", F.lit(seed)), "user_key", "day").limit(rows).toArrow()
    days = sorted({str(day.day) for day in published.contract.days})
    logged = tables.impressions.where(F.col(DAY).cast("string").isin(days))
    logged = logged.orderBy(F.xxhash64("impression_id", F.lit(seed), F.lit("log")), USER_KEY, MICROS).limit(rows)
    keys = logged.select(F.col(USER_KEY).alias("user_key"), "impression_id", F.col(DAY).alias("day")).distinct().toArrow()
    held = samples.join(F.broadcast(spark.createDataFrame(keys)), ["user_key", "impression_id", "day"], "left_semi").toArrow()
    found = {(row["user_key"], row["impression_id"], str(row["day"])): row for row in [*held.to_pylist(), *chosen.to_pylist()]}
    for row in keys.to_pylist():
        found.setdefault((row["user_key"], row["impression_id"], str(row["day"])), None)
    item_column = _item_column(config, fields)
    drawn = []
    for (user, name, day), values in sorted(found.items(), key=lambda pair: pair[0]):
        negative = config.log.kind == "positives_only" and values is not None and values["label"] == 0
        base = name.rpartition("#")[0] if negative else name
        item = _decoded(published, item_column, values) if negative else None
        drawn.append(Drawn(user, name, day, base, negative, item, values))
    return drawn


def _item_column(config: DataConfig, fields: Members) -> Member | None:
    """The candidate's field that is the item's id, if there is one."""
    for member in fields.shown:
        plain = member.config.kind == "categorical" and member.text.strip("`") == "item_id"
        if member.contract.group == "candidate" and plain:
            return member
    return None


def _decoded(published: Published, member: Member | None, values: Mapping[str, Any]) -> str | None:
    if member is None or values[member.column] <= UNKNOWN_ID or member.contract.vocabulary not in published.tables:
        return None
    table = published.tables[member.contract.vocabulary]
    text: str = table["value"][values[member.column] - 2].as_py()
    return text


def collect(tables: Tables, config: DataConfig, fields: Members, drawn: Sequence[Drawn]) -> Facts:
    """Collect what the logs say of the drawn rows' users, and of their items."""
    spark = tables.impressions.sparkSession
    users = _frame(spark, USER_KEY, pa.int64(), {row.user for row in drawn})
    impressions = _of(tables.impressions, users, USER_KEY)
    behaviors = tables.behaviors
    if config.recorded:  # those of the drawn impressions alone
        impression_ids = _frame(spark, "impression_id", pa.string(), {row.base_id for row in drawn})
        behaviors = behaviors.join(F.broadcast(impression_ids), "impression_id", "left_semi")
    user_behaviors = _of(behaviors, users, USER_KEY)
    negatives = {row.item for row in drawn if row.item is not None}
    sold = None
    if negatives:
        sold = _sold(tables, config, drawn)
    items = None
    if tables.items is not None:
        ids = {row.base_id for row in drawn}
        delivered_items = {item for name, item in _pairs(impressions, "impression_id", "item_id") if name in ids}
        wanted = _frame(spark, "item_id", pa.string(), delivered_items | negatives | set(user_behaviors["item_id"].to_pylist()))
        items = _of(tables.items, wanted, "item_id")
    profiles = None
    if tables.users is not None:
        extra = [member.value(tables.users).alias(member.column) for member in fields.profile]
        columns = [c for c in tables.users.columns if c not in {member.column for member in fields.profile}]
        profiles = _of(tables.users.select(*columns, *extra), users, USER_KEY)
    clicks = _of(tables.clicks, users, USER_KEY) if tables.clicks is not None else None
    return Facts(impressions, clicks, user_behaviors, profiles, items, sold)


def _sold(tables: Tables, config: DataConfig, drawn: Sequence[Drawn]) -> pa.Table:
    """When the items of drawn negatives had events: from an hour before their windows begin to the end of the positives' days."""
    assert config.log.negatives is not None
    window = round(config.log.negatives.window_hours * HOUR_MICROS)
    wanted = {(row.item, row.held["time"]) for row in drawn if row.item is not None and row.held is not None}
    items, times = zip(*sorted(wanted), strict=True)
    begins = [time - window - HOUR_MICROS for time in times]
    ends = [(time // DAY_MICROS + 1) * DAY_MICROS for time in times]
    spans = {"item_id": pa.array(items, pa.string()), "_begin": pa.array(begins), "_end": pa.array(ends)}
    frame = F.broadcast(tables.impressions.sparkSession.createDataFrame(pa.table(spans)))
    events = tables.impressions.select("item_id", MICROS).join(frame, "item_id")
    return (
        events.where((F.col(MICROS) >= F.col("_begin")) & (F.col(MICROS) < F.col("_end")))
        .select("item_id", MICROS)
        .distinct()
        .toArrow()
    )


def _of(table: DataFrame, keys: DataFrame, key: str) -> pa.Table:
    return table.join(F.broadcast(keys), key, "left_semi").toArrow()


def _frame(spark: SparkSession, name: str, kind: pa.DataType, values: Iterable[object]) -> DataFrame:
    return spark.createDataFrame(pa.table({name: pa.array(list(values), kind)}))


def _pairs(table: pa.Table, *columns: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(table[column].to_pylist() for column in columns), strict=True)
