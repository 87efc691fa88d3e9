"""Recorded histories, taken apart a second time: what an impression's own lists say, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from mian.contract import Split
from pipeline.audit.findings import SHOWN, Finding
from pipeline.audit.known import first_delivery, with_known
from pipeline.audit.published_samples import Published
from pipeline.audit.raw_fields import ITEM_KNOWN, Member
from pipeline.audit.tables import DAY_MICROS, MICROS, ONCE, USER_KEY, Tables
from pipeline.config import RECORDED, DataConfig, RecordedHistory
from pipeline.logs.rules import DAY


def with_recorded(tables: Tables, config: DataConfig) -> Tables:
    """The tables, their behaviors being those that the impressions bring along, where these do."""
    recorded = config.log.recorded_history
    if recorded is None:
        return tables
    entries = _entries(tables.impressions, config, recorded)
    lists = [c for c in tables.impressions.columns if c.startswith(RECORDED)]
    return replace(tables, impressions=tables.impressions.drop(*lists), behaviors=entries)


def _entries(impressions: DataFrame, config: DataConfig, recorded: RecordedHistory) -> DataFrame:
    """The behaviors that impressions bring along, one row each.

    Returns:
        :data:`USER_KEY`, ``impression_id``, ``item_id``, ``action``, the other columns of the elements, :data:`DAY`; :data:`MICROS`, which
        is when the behavior happened, or the impression where nobody says; ``_seen``, the impression's time; and :data:`ONCE`, the place
        from the most recent one on, from 0.
    """
    lists = [c for c in impressions.columns if c.startswith(RECORDED)]
    items = f"{RECORDED}item_id"
    numbered = impressions.select(USER_KEY, "impression_id", MICROS, DAY, "time", *lists).distinct()
    rows = numbered.select("*", F.posexplode(items).alias("_at", "_item"))
    for column in lists:
        rows = rows.withColumn(f"_of{column}", F.expr(f"try_element_at(`{column}`, _at + 1)"))
    rows = rows.where(F.col("_item").isNotNull() & F.octet_length("_item").between(1, 1_000) & F.is_valid_utf8("_item"))
    happened = F.col(MICROS)
    if recorded.times is not None:
        happened = F.unix_micros(f"_of{RECORDED}time")
        rows = rows.where(happened.between(F.col(MICROS) - config.history.days * DAY_MICROS, F.col(MICROS) - 1))
    order = F.col("_at") if recorded.most_recent == "first" else -F.col("_at")
    places = Window.partitionBy(USER_KEY, "impression_id", MICROS, F.xxhash64(*lists)).orderBy(order)
    rows = rows.withColumn(ONCE, (F.row_number().over(places) - 1).cast("long")).where(F.col(ONCE) < config.history.length)
    others = [F.col(f"_of{c}").alias(c.removeprefix(RECORDED)) for c in lists if c not in (items, f"{RECORDED}time")]
    action = [] if "action" in recorded.columns else [F.lit("click").alias("action")]
    return rows.select(
        USER_KEY,
        "impression_id",
        DAY,
        ONCE,
        F.col("_item").alias("item_id"),
        *others,
        *action,
        F.timestamp_micros(happened).alias("time"),
        happened.alias(MICROS),
        F.col(MICROS).alias("_seen"),
    )


def recorded_events(tables: Tables, config: DataConfig, members: Iterable[Member], span: Split) -> DataFrame:
    """What a user's recorded histories of some days hold, each once, as the first impression has it.

    Returns:
        ``user``, ``time``, ``seen`` and the raw values of fields.
    """
    members = tuple(members)
    entries = tables.behaviors.where(F.col(DAY).between(F.lit(span.first), F.lit(span.last)))
    if tables.items is not None and config.items is not None:
        # attributes are those of the impression's time
        shifted = entries.withColumns({"_happened": F.col(MICROS), MICROS: F.col("_seen")})
        entries = with_known(shifted, tables.items, config.items, "item_id", config.items.attributes, ITEM_KNOWN)
        entries = entries.drop(MICROS).withColumnRenamed("_happened", MICROS)
    values = [member.value(entries).alias(f"_value_{member.column}") for member in members]
    dated = config.recorded == "dated"
    keys = [USER_KEY, "item_id", "action", *[MICROS] * dated]
    order = ["_seen", *[f"_value_{member.column}" for member in members]]
    first = first_delivery(entries.select(*keys, "_seen", *values), keys, order)
    return first.select(
        F.col(USER_KEY).alias("user"),
        F.col("_seen").alias("time"),
        F.col("_seen").alias("seen"),
        *[F.col(f"_value_{member.column}").alias(member.column) for member in members],
    )


def scan_recorded(published: Published, tables: Tables, config: DataConfig) -> Iterator[Finding]:
    """Look at the length of every sample's history: is it that of the list in its impression?"""
    lengths = tables.behaviors.select(USER_KEY, "impression_id", F.col("_seen").alias("time"), ONCE)
    lengths = lengths.groupBy(USER_KEY, "impression_id", "time").agg((F.max(ONCE) + 1).alias("_length"))
    negative = F.lit(config.log.kind == "positives_only") & (F.col("label") == 0)
    base = F.when(negative, F.regexp_replace("impression_id", r"#\d+$", "")).otherwise(F.col("impression_id"))
    samples = published.samples.select(
        "day",
        F.col("impression_id").alias("_id"),
        base.alias("impression_id"),
        F.col("user_key").alias(USER_KEY),
        "time",
        "behavior_length",
    )
    wanted = F.coalesce("_length", F.lit(0))
    wrong = samples.join(lengths, [USER_KEY, "impression_id", "time"], "left").where(F.col("behavior_length") != wanted)
    rows = wrong.select("day", "_id", "behavior_length", wanted.alias("_wanted")).orderBy("day", "_id")
    totals = {str(row["day"]): row["count"] for row in wrong.groupBy("day").count().collect()}
    for row in rows.limit(SHOWN).collect():
        said = f"{row['_wanted']} behaviors in the impression's own list"
        yield Finding("history", str(row["behavior_length"]), said, str(row["day"]), row["_id"], "behavior_length")
        totals[str(row["day"])] -= 1
    yield from (Finding("history", "", "", day, count=left) for day, left in totals.items() if left)
