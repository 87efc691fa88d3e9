"""Keys that never meet: a source whose rows find no partner stops the build, with ids of both sides."""

from __future__ import annotations

import ast
import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.config import DataConfig, Source
from pipeline.join.matches import BEHAVIORS, CLICKS, ITEMS, USERS
from pipeline.logs.errors import LogError
from pipeline.logs.sources import read_source

#: So many rows may find no partner by chance.
HANDFUL = 5
#: A day of so many rows is judged by itself, a smaller one together with the other days that are built.
ENOUGH_ROWS = 100

#: Counts by source, see :func:`pipeline.join.matches.merged`.
Found = Mapping[str, Mapping[str, Any]]

#: Zeros before a whole number.
_PADDING = r"^0+(?=[0-9])"

_ROWS = {CLICKS: "clicks", ITEMS: "impressions", USERS: "impressions", BEHAVIORS: "behaviors"}


def refuse_unmatched(spark: SparkSession, config: DataConfig, days: Mapping[dt.date, Found]) -> None:
    """Stop where the rows of a source find no partner, or fewer than ``quality.min_matched`` says.

    Where that says nothing, a source also stops the build when ids without a partner have one under another form, as ``7`` and ``007``.

    Args:
        spark: the session; it reads some ids of the other side for the error.
        config: the data set.
        days: what was found on the days that were built.

    Raises:
        LogError: the day, the source, how many rows found their partner, and three ids of each side.
    """
    limits = config.quality.min_matched
    for day, sources in sorted(days.items()):
        for source, found in sources.items():
            rows, early = found["rows"], found["early"]
            by_id = source == CLICKS and config.log.attribution_by == "impression_id"
            if by_id and early > max(HANDFUL, config.quality.max_early_clicks * rows):
                raise LogError(
                    f"{day}: {early} of {rows} clicks come before the impression of their id: is the clock of one log slow, or its time "
                    f"zone another? Correct log.clicks.columns.time; quality.max_early_clicks allows {config.quality.max_early_clicks:g}"
                )
            if source in limits:
                if found["found"] < limits[source] * rows:
                    raise LogError(_words(spark, config, f"{day}: ", source, found))
            elif _is_mismatch(source, found, ENOUGH_ROWS):
                raise LogError(_words(spark, config, f"{day}: ", source, found))
    for source in _ROWS:
        every = [sources[source] for sources in days.values() if source in sources]
        rows, found_rows = sum(found["rows"] for found in every), sum(found["found"] for found in every)
        together = {"rows": rows, "found": found_rows, "examples": every[0]["examples"] if every else []}
        if source not in limits and _is_mismatch(source, together, HANDFUL + 1):
            raise LogError(_words(spark, config, "", source, together))
        if source in (ITEMS, USERS, BEHAVIORS) and source not in limits:
            _refuse_padding(spark, config, source, {example for found in every for example in found["examples"]})


def _refuse_padding(spark: SparkSession, config: DataConfig, source: str, examples: set[str]) -> None:
    """Stop where the other side has an id without a partner with more or fewer zeros before it.

    Args:
        spark: the session.
        config: the data set.
        source: ``items``, ``users`` or ``behaviors``.
        examples: ids that found no partner, as an error shows them.

    Raises:
        LogError: the id in both forms.
    """
    alone = {re.sub(_PADDING, "", text): text for text in map(ast.literal_eval, examples) if text.isascii() and text.isdigit()}
    if not alone:
        return
    name, other, (key, *_) = _other_side(config, source)
    bare = F.regexp_replace(key, _PADDING, "")
    row = read_source(spark, name, other).where(bare.isin(*alone)).select(key, bare).first()
    if row is not None:
        raise LogError(
            f"{_ROWS[source]} have the {key} {alone[row[1]]!r}, and {name} has {row[0]!r}: these never meet. Bring them to one form with "
            f"an expression under columns, as with lpad(...) or CAST(... AS DECIMAL(20, 0)), or, where they are two, say "
            f"quality.min_matched: {{{source}: 0}}"
        )


def _is_mismatch(source: str, found: Mapping[str, Any], enough: int) -> bool:
    """Whether not one of enough rows has a partner; a lookup may well have none for a day, such as one of holidays."""
    return source in _ROWS and found["rows"] >= enough and found["found"] == 0


def _words(spark: SparkSession, config: DataConfig, when: str, source: str, found: Mapping[str, Any]) -> str:
    name, other, columns = _other_side(config, source)
    rows = _ROWS.get(source, "impressions")
    few = read_source(spark, name, other).select(*columns).limit(3).collect()
    stored = ", ".join(sorted(_shown(row.asDict(), columns) for row in few)) or "no rows at all"
    here = ", ".join(found["examples"])
    limit = config.quality.min_matched.get(source)
    allowed = f"quality.min_matched.{source} asks for {limit:g} of them" if limit is not None else "so the ids are of two kinds"
    place = "log.clicks" if source == CLICKS else f"log.{rows}"
    return (
        f"{when}{found['found'] or 'none'} of {found['rows']} {rows} found a row of {name} with their {' and '.join(columns)}; {allowed}. "
        f"{f'{rows.capitalize()} such as {here}; ' if here else ''}{name} has such as {stored}. Bring the ids of {place} and {name} to "
        f"one form with expressions under columns, or, where this is right, say quality.min_matched: {{{source}: 0}}"
    )


def _other_side(config: DataConfig, source: str) -> tuple[str, Source, list[str]]:
    """The table that rows look for a partner in: its place in the configuration, itself, and the columns of the key."""
    if source == CLICKS:
        key = "impression_id" if config.log.attribution_by == "impression_id" else "item_id"
        return "log.impressions", config.log.impressions, [key, "user_id"]
    if source == USERS and config.users is not None:
        return "users", config.users, ["user_id"]
    if source in (ITEMS, BEHAVIORS) and config.items is not None:
        return "items", config.items, ["item_id"]
    lookup = config.lookups[int(source.partition(".")[2])]
    return source, lookup, lookup.keys


def _shown(row: Mapping[str, Any], columns: list[str]) -> str:
    first, *others = (repr(row[column]) for column in columns)
    return f"{first} of user {others[0]}" if columns[1:] == ["user_id"] else " and ".join([first, *others])
