"""From the logs, whatever their kind, to three tables: impressions, clicks, behaviors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import DataConfig, Source
from pipeline.days import ONE_DAY, Calendar, days_between, microseconds
from pipeline.logs.attributes import known_spans
from pipeline.logs.errors import LogError
from pipeline.logs.ids import IdColumns, refuse_faults, text_of
from pipeline.logs.negatives import draw_negatives
from pipeline.logs.reach import impressions_ahead, impressions_back, reach_back, whole_days
from pipeline.logs.recorded import take_histories
from pipeline.logs.rules import DAY, REASON, LogFacts, count, is_positive, mark, refuse, refuse_broken, table_fault
from pipeline.logs.sources import CORRUPT, LABEL_TIME, LIST_FAULT, PARTITION_DAY, read_source


@dataclass(frozen=True)
class Events:
    """What happened on a range of days. Rows that break a rule are left out; each of the other rows may occur twice.

    Attributes:
        impressions: Columns ``impression_id``, ``user_id``, ``item_id``, ``time``, ``label`` if the log has one, and the other columns of
            the log. If there is a log of clicks, also the impressions of the attribution window after the last day, because a click
            belongs to the latest impression.
        earlier: The ids and times of those impressions before the first day that clicks may belong to; None without a log of clicks.
        clicks: ``impression_id`` if the log has it, ``user_id``, ``item_id``, ``time``.
        behaviors: ``impression_id`` if the log has it, ``user_id``, ``item_id``, ``time``, ``arrived`` if the log has it, ``action`` and
            other columns. They begin as long before the first day as a history reaches. Rows with the same ``_once``, user, item,
            action and impression are one event.
        rows: The approximate number of impressions of each day.
        facts: What was counted in each log, and in the tables of users and items, whose rows belong to no day.
        quarantine: The rows that break a rule: ``day``, ``reason`` and ``row``, a JSON text.
        first: The first day.
        last: The last day.
    """

    impressions: DataFrame
    earlier: DataFrame | None
    clicks: DataFrame | None
    behaviors: DataFrame
    rows: Mapping[dt.date, int]
    facts: Mapping[str, LogFacts]
    quarantine: DataFrame
    first: dt.date
    last: dt.date
    ids: IdColumns
    """Of the logs, for the tables that are joined to them."""
    tables: Mapping[str, DataFrame]
    """``users`` and ``items``, as far as they are needed, see :func:`pipeline.logs.sources.read_source`."""


class Reading:
    """What is found out while the logs of some days are read."""

    def __init__(self) -> None:
        self.facts: dict[str, LogFacts] = {}
        self.broken: list[DataFrame] = []
        self.ids = IdColumns()

    def quarantine(self) -> DataFrame:
        """All rows that break a rule."""
        frame = self.broken[0]
        for other in self.broken[1:]:
            frame = frame.unionByName(other)
        return frame


class EventLogs:
    """The event logs of a data set, checked as they are read.

    Args:
        spark: the session.
        config: the data set.
    """

    def __init__(self, spark: SparkSession, config: DataConfig) -> None:
        self._spark = spark
        self._config = config
        self._start = min(split.first for split in config.splits.values())

    def read(self, first: dt.date, last: dt.date) -> Events:
        """Read and check the events that the samples of ``first`` to ``last`` are made of.

        Raises:
            LogError: a log cannot be used, or a day has no impressions.
        """
        config, log = self._config, self._config.log
        back = reach_back(config)
        reading = Reading()

        def events(name: str, source: Source, begin: dt.date, end: dt.date, days: list[dt.date]) -> DataFrame:
            return self._events(reading, name, source, (begin, end), days, (first, last))

        days = [day for day in days_between(first, last) if not log.may_be_empty(day)]
        from_log = log.clicks is None and not log.has_behaviors
        begin = first - (back if from_log or log.kind == "positives_only" else impressions_back(config))
        end = last + whole_days(impressions_ahead(config))
        impressions = events("log.impressions", log.impression_source, begin, end, days)
        clicks = None
        if log.clicks is not None:
            begin = first if log.has_behaviors else first - back
            # a day more than labels need: whether there is one says whether the labels of the last day are final
            clicks = events("log.clicks", log.clicks, begin, last + whole_days(log.attribution) + ONE_DAY, [])
        tables = self._checked_tables(reading, first, last)
        if config.recorded:
            impressions, behaviors = take_histories(config, impressions)
        else:
            behaviors = self._behaviors(impressions, clicks, last, lambda n, s: events(n, s, first - back, last, []))
        begins = F.expr(config.calendar.start_sql(first))
        asked = impressions.where(F.col("time") >= begins).drop(LABEL_TIME)
        if log.label_ties == "refuse":
            self._refuse_ties(asked)
        earlier = impressions.where(F.col("time") < begins) if log.clicks is not None else None
        rows = {day: n for day, n in self._rows(reading.facts).items() if first <= day <= last}
        if log.kind == "labeled":
            asked = asked.withColumn("label", is_positive(F.col("label")).cast("int"))
        if log.kind == "positives_only":
            assert log.negatives is not None
            known = self._items_known(first, last)
            start, reach = config.calendar.start(first), config.history.reach
            asked = draw_negatives(asked, impressions, known, log.negatives, start, reach, config.seed, config.calendar)
        quarantine = reading.quarantine()
        return Events(asked, earlier, clicks, behaviors, rows, reading.facts, quarantine, first, last, reading.ids, tables)

    def _events(
        self,
        reading: Reading,
        name: str,
        source: Source,
        reach: tuple[dt.date, dt.date],
        days: list[dt.date],
        built: tuple[dt.date, dt.date],
    ) -> DataFrame:
        """The events of a log that keep its rules.

        Args:
            reading: Gets what is found out.
            name: The log's place in the configuration.
            source: The log.
            reach: The first and the last day to read.
            days: Days that may not be without events.
            built: The first and the last day of the samples.

        Raises:
            LogError: The log cannot be used.
        """
        config, (begin, end), (first, last) = self._config, reach, built
        frame = read_source(self._spark, name, source, days=reach)
        marked = mark(frame, source, config.quality, config.calendar)
        found = count(marked)
        reading.facts[name] = found.within(begin, end)
        refuse(name, marked, reading.facts[name], config.quality, days, f"between {begin} and {end}", judged=first)
        reading.ids.add(name, frame)
        reading.broken.append(self._broken(name, marked, reading.facts[name], first, last))
        # if no row breaks a rule, no row has to be looked at a second time
        good = marked.where(F.col(REASON).isNull()) if found.broken else frame
        return _during(good.drop(DAY, REASON, CORRUPT, PARTITION_DAY, LIST_FAULT), begin, end, config.calendar)

    def _checked_tables(self, reading: Reading, first: dt.date, last: dt.date) -> dict[str, DataFrame]:
        """The tables of users and items, checked."""
        tables = self._tables(first, last)
        for name, table in tables.items():
            marked = _marked(name, table)
            facts = reading.facts[name] = count(marked.select(DAY, REASON))
            if facts.broken:
                refuse_faults(name, table)
            refuse_broken(name, marked, facts, self._config.quality, first)
            reading.ids.add(name, table)
        if any(reading.facts[name].broken for name in tables) and first <= self._start <= last:
            # the quarantine of the first day holds what that day itself needs, whichever days are built with it
            for name, table in self._tables(self._start, self._start).items():
                reading.broken.append(self._broken(name, _marked(name, table), reading.facts[name], first, last))
        return tables

    def _refuse_ties(self, impressions: DataFrame) -> None:
        day = F.expr(self._config.calendar.number_sql("time")).alias("day")
        label = is_positive(F.col("label"))
        both = impressions.groupBy("user_id", "impression_id", day).agg(F.min(label).alias("least"), F.max(label).alias("most"))
        found = both.where("least < most").select("impression_id", "user_id").limit(3).collect()
        if found:
            examples = ", ".join(f"{row['impression_id']!r} of user {row['user_id']!r}" for row in found)
            raise LogError(
                f"log.impressions: the log holds an impression of a day twice, with label 0 and with label 1, such as {examples}; correct "
                "the log, or take the label 1 where there is one, with log.label_ties: max"
            )

    def _items_known(self, first: dt.date, last: dt.date) -> DataFrame | None:
        """From when to when ``items`` knows each item, as far as it matters to some days; None where it does not say."""
        items, negatives = self._config.items, self._config.log.negatives
        if items is None or negatives is None or "valid_from" not in items.columns:
            return None
        back = items.reach
        days = (first - back - whole_days(negatives.window), last) if back is not None else None
        table = read_source(self._spark, "items", items, days=days)
        return known_spans(table.where(table_fault(table, "item_id").isNull()), items, "item_id")

    def _tables(self, first: dt.date, last: dt.date) -> dict[str, DataFrame]:
        """The tables of users and items; with a ``day_column`` the partitions that some days can need."""
        tables = {}
        for name, source in (("users", self._config.users), ("items", self._config.items)):
            if source is not None:
                back = source.reach
                days = (first - reach_back(self._config) - back, last) if back is not None else None
                tables[name] = read_source(self._spark, name, source, days=days)
        return tables

    def _behaviors(
        self, impressions: DataFrame, clicks: DataFrame | None, last: dt.date, read: Callable[[str, Source], DataFrame]
    ) -> DataFrame:
        log = self._config.log
        if log.behaviors:
            frames = [
                read(f"log.behaviors.{action}", source).withColumns({"_action": F.lit(action), "_once": F.unix_micros("time")})
                for action, source in log.behaviors.items()
            ]
        elif clicks is not None:
            frames = [clicks.withColumns({"_action": F.lit("click"), "_once": F.unix_micros("time")})]
        else:
            positive = self._positives(impressions) if log.kind == "labeled" else impressions
            # an impression of a day is one, also where a second delivery says another time
            day = F.expr(self._config.calendar.number_sql("time")).cast("long")
            frames = [positive.withColumns({"_action": F.lit("click"), "_once": day})]
        frames = [_with_action(frame) for frame in frames]
        behaviors = frames[0].drop("_action")
        for frame in frames[1:]:
            behaviors = behaviors.unionByName(frame.drop("_action"), allowMissingColumns=True)
        # what happened after the last day is no behavior of these days, nor a word of their vocabularies
        return behaviors.where(F.col("time") < F.expr(self._config.calendar.start_sql(last + ONE_DAY)))

    def _positives(self, impressions: DataFrame) -> DataFrame:
        """The positives of a labeled log as behaviors: they count from when their labels were known."""
        positive = impressions.where(is_positive(F.col("label"))).drop("label")
        delay = self._config.log.label_delay
        moments = [F.col(c) for c in ("arrived", LABEL_TIME) if c in positive.columns]
        if delay:
            moments.append(F.timestamp_micros(F.unix_micros("time") + microseconds(delay)))
        return positive.withColumn("arrived", F.greatest("time", *moments)).drop(LABEL_TIME) if moments else positive

    def _rows(self, facts: Mapping[str, LogFacts]) -> dict[dt.date, int]:
        """About how many samples a day has: after sampling, with drawn negatives, before duplicates are left out."""
        config, impressions = self._config, facts["log.impressions"]
        positives = facts["log.clicks"].rows if "log.clicks" in facts else impressions.positives
        drawn = config.log.negatives.uniform + config.log.negatives.popularity if config.log.negatives is not None else 0
        rows = {}
        for day, n in impressions.rows.items():
            if day is not None:
                good = n - sum(impressions.broken.get(day, {}).values())
                clicked = good if drawn else min(good, positives.get(day, 0))
                rows[day] = clicked + round((good - clicked + drawn * good) * config.sampled(day))
        return rows

    def _broken(self, name: str, marked: DataFrame, facts: LogFacts, first: dt.date, last: dt.date) -> DataFrame:
        """The rows that break a rule, as text; those that no day can be said of are with the first day of all splits."""
        values = [c for c in marked.columns if c not in (DAY, REASON, PARTITION_DAY, LIST_FAULT)]
        rows = marked.where(F.col(REASON).isNotNull()) if facts.broken else marked.limit(0)
        return rows.select(
            F.coalesce(F.col(DAY), F.lit(self._start)).alias("day"),
            F.concat(F.lit(f"{name}: "), F.col(REASON)).alias("reason"),
            F.to_json(F.struct(*[F.substring(F.col(c).cast("string"), 1, 10_000).alias(c) for c in values])).alias("row"),
        ).where(F.col("day").between(F.lit(first), F.lit(last)))


def _marked(name: str, table: DataFrame) -> DataFrame:
    """A table of users or items with the rules that rows break; no row is of a day. A line that is broken is refused later."""
    rows = table.where(F.col(CORRUPT).isNull()) if CORRUPT in table.columns else table
    fault = table_fault(rows, "user_id" if name == "users" else "item_id")
    return rows.withColumns({REASON: fault, DAY: F.lit(None).cast("date")})


def _with_action(frame: DataFrame) -> DataFrame:
    """The log's own column of actions as text, or else what the log is of."""
    if "action" not in frame.columns:
        return frame.withColumnRenamed("_action", "action")
    return frame.withColumn("action", text_of(F.col("action"), frame.schema["action"].dataType))


def _during(frame: DataFrame, first: dt.date, last: dt.date, calendar: Calendar) -> DataFrame:
    begin, end = F.expr(calendar.start_sql(first)), F.expr(calendar.start_sql(last + ONE_DAY))
    return frame.where((F.col("time") >= begin) & (F.col("time") < end))
