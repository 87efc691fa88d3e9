"""The rows that vocabularies and transforms are made from, with all fields' raw values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mian.contract import Split
from pipeline.audit.known import first_delivery, with_known, with_lookup
from pipeline.audit.raw_fields import ITEM_KNOWN, USER_KNOWN, Member, Members
from pipeline.audit.recompute import midnight
from pipeline.audit.tables import MICROS, USER_KEY, Tables
from pipeline.config import DataConfig
from pipeline.logs.expressions import fits
from pipeline.logs.rules import DAY


def shown_rows(tables: Tables, config: DataConfig, fields: Members, span: Split) -> DataFrame:
    """The impressions of some days, each once: ``user``, ``time`` and the raw values of all fields but the behaviors'.

    Of a log of positives they are the positives.
    """
    rows = tables.impressions.where(F.col(DAY).between(F.lit(span.first), F.lit(span.last)))
    flags = []
    if config.items is not None and tables.items is not None:
        rows = with_known(rows, tables.items, config.items, "item_id", config.items.attributes, ITEM_KNOWN)
        flags.append(ITEM_KNOWN)
    for lookup, table in zip(config.lookups, tables.lookups, strict=True):
        rows = with_lookup(rows, table, lookup)
    label = ["label"] if "label" in rows.columns else []
    if config.log.kind == "positives_only":
        rows = rows.withColumn("label", F.lit(1))
    values = []
    if config.users is not None and tables.users is not None:
        if fields.users_joined:
            rows = with_known(rows, tables.users, config.users, "user_id", config.users.attributes, USER_KNOWN)
        else:
            table = tables.users
            extra = [member.value(table).alias(f"_value_{member.column}") for member in fields.profile]
            table = table.select("user_id", "_from", "_arrived", "_to", *extra)
            columns = [f"_value_{member.column}" for member in fields.profile]
            rows = with_known(rows, table, config.users, "user_id", columns, USER_KNOWN)
            values = [F.col(column) for column in columns]
        flags.append(USER_KNOWN)
    values = [*[member.value(rows).alias(f"_value_{member.column}") for member in fields.shown], *values]
    keys = [USER_KEY, "impression_id", DAY]
    names = [f"_value_{member.column}" for member in (*fields.shown, *fields.profile)]
    rows = first_delivery(
        rows.select(*keys, MICROS, "item_id", *label, *flags, *values), keys, [MICROS, "item_id", *label, *flags, *names]
    )
    for name, source in ((ITEM_KNOWN, config.items), (USER_KNOWN, config.users)):
        if source is not None and source.missing == "quarantine":
            rows = rows.where(name)
    return rows.select(
        F.col(USER_KEY).alias("user"),
        F.col(MICROS).alias("time"),
        *[F.col(f"_value_{member.column}").alias(member.column) for member in (*fields.shown, *fields.profile)],
    )


def possible_values(
    tables: Tables, config: DataConfig, members: Sequence[Member], span: Split
) -> tuple[DataFrame | None, list[Member]]:
    """The values that drawn negatives can bring: of the items with an event shortly before or on those days.

    Args:
        tables: the logs.
        config: the data set.
        members: fields that depend on the item.
        span: the days.

    Returns:
        ``vocabulary`` and ``value``, and the fields whose values depend on more than the item or a lookup.
    """
    hours = config.log.negatives.window_hours if config.log.negatives is not None else 0.0
    first = (dt.datetime.combine(span.first, dt.time()) - dt.timedelta(hours=hours)).date()
    events = tables.impressions.where(F.col(DAY).between(F.lit(first), F.lit(span.last)))
    pool = events.select("item_id").distinct()
    frames = [pool]
    if tables.items is not None:
        # a row that was not known by the end of these days is none of theirs
        end = midnight(span.last + dt.timedelta(days=1), config.day_time_zone)
        known = F.coalesce(F.greatest("_from", F.coalesce("_arrived", "_from")) < end, F.lit(True))
        frames.append(tables.items.where(known).join(pool, "item_id", "left_semi"))
    for lookup, table in zip(config.lookups, tables.lookups, strict=True):
        for keys, rows in ((["item_id"], pool), ([key for key in lookup.keys if key != "item_id"], events)):
            if "item_id" in lookup.keys and keys:
                table = table.join(rows.select(*keys).distinct(), keys, "left_semi")
        frames.append(table)
    found, left = None, []
    for member in members:
        frame = next((frame for frame in frames if fits(frame, member.text)), None)
        if frame is None:
            left.append(member)
        elif member.config.kind == "categorical":
            values = frame.select(F.lit(member.vocabulary).alias("vocabulary"), member.value(frame).alias("value"))
            found = values if found is None else found.unionByName(values)
    return found, left
