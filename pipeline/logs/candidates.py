"""Candidates that are to be scored: impressions without labels, and what their users did before them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract import Split
from mian.contract.document import LABEL_COLUMN
from pipeline.config import DataConfig, Sampling
from pipeline.days import PLAUSIBLE_YEARS, days_between
from pipeline.logs.errors import LogError
from pipeline.logs.events import EventLogs, Events, Reading
from pipeline.logs.reach import reach_back
from pipeline.logs.recorded import take_histories
from pipeline.logs.rules import LogFacts, count, mark
from pipeline.logs.sources import LABEL_TIME, read_source

_NULL = {"categorical": "cast(null as string)", "numeric": "cast(null as double)"}
#: What a log of impressions says of a row after it was shown: a candidate has none of it.
LATER_COLUMNS = (LABEL_COLUMN, LABEL_TIME, "arrived")


def candidates_config(config: DataConfig, path: str, unknown: Collection[str] = ()) -> DataConfig:
    """A data set with candidates in the place of its impressions, and with behaviors of a source of their own.

    Behaviors come from where they came before: logs of behaviors, clicks, the log's positives, or the candidates' own lists. No label
    is asked for, no negative is drawn, none is left out.

    Args:
        config: the data set that the model was trained on.
        path: the candidates; their format, options and columns are those of ``log.impressions``.
        unknown: columns of the context, such as ``context_position``, that the candidates need not have; they are null.
    """
    log = config.log
    later = {name for name, field in config.fields.context.items() if f"context_{name}" in unknown and field.expression is None}
    columns = {name: text for name, text in log.impressions.columns.items() if name not in {*LATER_COLUMNS, *later}}
    candidates = log.impressions.model_copy(update={"path": path, "table": None, "columns": columns})
    behaviors = log.behaviors if log.has_behaviors else {"click": log.clicks or log.impressions}
    changes = {"kind": "labeled", "impressions": candidates, "clicks": None, "negatives": None, "behaviors": behaviors}
    context = {
        name: field.model_copy(update={"expression": _NULL[field.kind]}) if f"context_{name}" in unknown else field
        for name, field in config.fields.context.items()
    }
    fields = config.fields.model_copy(update={"context": context})
    return config.model_copy(update={"log": log.model_copy(update=changes), "sampling": Sampling(), "fields": fields})


def candidate_days(
    spark: SparkSession, candidates: DataConfig, first: dt.date | None = None, last: dt.date | None = None
) -> list[dt.date]:
    """The days of the candidates, in order.

    Args:
        spark: the session.
        candidates: see :func:`candidates_config`.
        first: earlier days are left out.
        last: later days are left out.

    Raises:
        LogError: the log cannot be read, or has no rows on such days.
    """
    source = candidates.log.impression_source
    begin, end = (dt.date(year, month, day) for year, (month, day) in zip(PLAUSIBLE_YEARS, ((1, 1), (12, 31)), strict=True))
    days = (first or begin, last or end) if first or last else None
    frame = read_source(spark, "log.impressions", source, days=days)
    found = count(mark(frame, source, candidates.quality, candidates.calendar)).rows
    wanted = sorted(day for day in found if day is not None and (first or day) <= day <= (last or day))
    if not wanted:
        between = f" between {first or 'the first day'} and {last or 'the last day'}" if first or last else ""
        raise LogError(
            f"log.impressions: no candidates with a day in {source.place}{between}; correct --impressions, --from or --to"
        )
    return wanted


def good_rows(facts: LogFacts, day: dt.date) -> int:
    """How many rows of a day break no rule."""
    return facts.rows.get(day, 0) - sum(facts.broken.get(day, {}).values())


class CandidateLogs(EventLogs):
    """The logs that candidates and their histories are made of, checked as they are read.

    Args:
        spark: the session.
        config: the data set that the model was trained on: where the behaviors lie.
        candidates: see :func:`candidates_config`.
        first: the first of all days that are scored; rows that no day can be said of lie in its quarantine.
    """

    def __init__(self, spark: SparkSession, config: DataConfig, candidates: DataConfig, first: dt.date) -> None:
        super().__init__(spark, config.model_copy(update={"splits": {"train": Split(first=first, last=first)}}))
        self._candidates = candidates

    def read(self, first: dt.date, last: dt.date) -> Events:
        """Read and check what the candidates of ``first`` to ``last`` are scored by.

        Returns:
            Candidates as impressions with label 0; no clicks. Behaviors are those that samples of these days would have.

        Raises:
            LogError: a log cannot be used.
        """
        config, log = self._config, self._config.log
        back = reach_back(self._candidates)
        reading = Reading()

        def history(name: str) -> DataFrame:
            source = log.clicks if name == "log.clicks" else log.behaviors.get(name.rpartition(".")[2], log.impressions)
            assert source is not None
            return self._events(reading, name, source, (first - back, last), [], (first, last))

        source = self._candidates.log.impression_source
        rows = self._events(reading, "log.impressions", source, (first, last), [], (first, last))
        tables = self._checked_tables(reading, first, last)
        if config.recorded:
            rows, behaviors = take_histories(self._candidates, rows)
        else:
            clicks = history("log.clicks") if log.clicks is not None and not log.behaviors else None
            shown = rows if log.clicks is not None or log.behaviors else history("log.impressions of histories")
            behaviors = self._behaviors(shown, clicks, last, lambda name, _: history(name))
        return Events(
            impressions=rows.withColumn(LABEL_COLUMN, F.lit(0)),
            earlier=None,
            clicks=None,
            behaviors=behaviors,
            rows={day: good_rows(reading.facts["log.impressions"], day) for day in days_between(first, last)},
            facts=reading.facts,
            quarantine=reading.quarantine(),
            first=first,
            last=last,
            ids=reading.ids,
            tables=tables,
        )
