"""Rules that every row of an event log must keep; a row that breaks one goes to the quarantine."""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.config import Quality, Source
from pipeline.days import PLAUSIBLE_YEARS, Calendar
from pipeline.logs.errors import LogError
from pipeline.logs.ids import ID_HINT, IDS, id_faults
from pipeline.logs.sources import CORRUPT, LABEL_TIME, LIST_FAULT, LIST_FAULTS, PARTITION_DAY

log = logging.getLogger(__name__)

#: Bytes of an id; a longer one is some other column, or a file that lost its line ends.
LONGEST_ID = 1_000

Fact = TypeVar("Fact")

#: How a label may be written.
POSITIVE, NEGATIVE = ("1", "1.0", "true"), ("0", "0.0", "false")

#: The rule that a row breaks; null where it breaks none.
REASON = "_reason"
#: The day that a row belongs to: that of its time, or, where that cannot be, that of its partition.
DAY = "_day"

_HINTS = {
    "cannot be parsed": "is the format right, and its schema and options (`multiLine: true` where a row or an array has several lines)? "
    "`options: {mode: PERMISSIVE}` takes lines with too few or too many columns, and values of another type, for what they can be",
    "valid_from is null": "correct the expression, or leave such rows out, as with `where: since IS NOT NULL`; where all rows count at "
    "all times, leave the column valid_from out",
    "valid_from lies outside": "is the unit right, seconds or milliseconds? Write timestamp_seconds(...) or timestamp_millis(...); a row "
    "that counts at all times begins at the earliest in 1990, as with greatest(since, TIMESTAMP '1990-01-01')",
    "of explode is null": "correct the expression, as with coalesce(..., array()) where no list means that nothing was shown",
    "is null": "correct the expression, or leave such rows out, as with `where: uid IS NOT NULL` where the column is uid",
    "is not UTF-8": "say how the file is encoded, as in `options: {encoding: ISO-8859-1}`, or write it anew",
    "no whole number": ID_HINT,
    "blanks around": ID_HINT,
    "with a point": ID_HINT,
    "more than": "is the separator right, and are there line ends?",
    "outside the years": "is the unit right, seconds or milliseconds? Write timestamp_seconds(...) or timestamp_millis(...)",
    "that is no date": "name the folder of a day as in day=2026-01-31, or take it away",
    "lies in the partition": "are partitions of the days of `day_time_zone`, which is UTC by default? Where they are of arrival, say how "
    "late rows may be: `late_days: 1`",
    "arrived before": "clocks differ; allow it with quality.clock_skew_seconds",
    "label_time": "it is when the label became known, such as the time of the purchase that makes it 1; clocks that differ are allowed "
    "by quality.clock_skew_seconds",
    "recorded history": "each list has an entry for each behavior; correct log.behaviors",
    "label": "a label is 0 or 1: write its expression so, as in `label: int(rating >= 4)`",
}


def is_positive(label: Column) -> Column:
    """Whether a label that keeps the rule is 1."""
    return label.cast("string").isin(*POSITIVE)


def table_fault(frame: DataFrame, key: str) -> Column:
    """The rule that a row of a table of users or items breaks; null where it breaks none.

    Args:
        frame: the table's configured columns.
        key: ``user_id`` or ``item_id``.
    """
    rules: list[tuple[str, Column]] = []
    if LIST_FAULT in frame.columns:
        rules += [(fault, F.col(LIST_FAULT) == fault) for fault in LIST_FAULTS]
    rules.append((f"{key} is null", F.col(key).isNull()))
    rules += [rule for name in IDS if name in frame.columns for rule in id_faults(frame, name)]
    for name in ("valid_from", "arrived"):
        if name in frame.columns:
            rules.append((f"{name} is null", F.col(name).isNull()))
            rules.append(
                (f"{name} lies outside the years {PLAUSIBLE_YEARS[0]} to {PLAUSIBLE_YEARS[1]}", ~_plausible(F.col(name)))
            )
    return _reason(rules)


def mark(frame: DataFrame, source: Source, quality: Quality, calendar: Calendar) -> DataFrame:
    """Add :data:`DAY`, of a calendar, and :data:`REASON` to the rows of an event log."""
    rules: list[tuple[str, Column]] = []
    if CORRUPT in frame.columns:
        rules.append(("the line cannot be parsed", F.col(CORRUPT).isNotNull()))
    if LIST_FAULT in frame.columns:
        rules += [(fault, F.col(LIST_FAULT) == fault) for fault in LIST_FAULTS]
    for name in IDS:
        if name in frame.columns:
            value = F.col(name)
            rules.append((f"{name} is null or empty", value.isNull() | (value == "")))
            # readers of lines put a sign for what is no text; of the others the bytes come as they are
            lines = source.format in ("csv", "json")
            rules.append((f"{name} is not UTF-8 text", value.contains("\ufffd") if lines else ~F.is_valid_utf8(value)))
            rules.append((f"{name} has more than {LONGEST_ID} bytes", F.octet_length(value) > LONGEST_ID))
            rules += id_faults(frame, name)
    time = F.col("time")
    usable = time.isNotNull() & _plausible(time)
    number = F.expr(calendar.number_sql("time"))
    rules.append(("time is null", time.isNull()))
    rules.append((f"time lies outside the years {PLAUSIBLE_YEARS[0]} to {PLAUSIBLE_YEARS[1]}", ~usable))
    day = F.when(usable, F.date_from_unix_date(number))
    if PARTITION_DAY in frame.columns:
        partition = F.col(PARTITION_DAY)
        rules.append(("the row lies in a partition that is no date", partition.isNull()))
        late = F.unix_date(partition) - number
        inside = late.between(0, source.late_days)
        rules.append(("the row lies in the partition of another day", ~F.coalesce(inside, F.lit(False))))
        day = F.when(usable & inside, F.date_from_unix_date(number)).otherwise(partition)
    if "arrived" in frame.columns:
        skew = F.expr(f"INTERVAL {round(quality.clock_skew_seconds * 1_000_000)} MICROSECONDS")
        rules.append(("arrived is null", F.col("arrived").isNull()))
        rules.append(("the row arrived before it happened", F.col("arrived") + skew < time))
    if "label" in frame.columns:
        text = F.col("label").cast("string")
        rules.append(("label is neither 0 nor 1", text.isNull() | ~text.isin(*POSITIVE, *NEGATIVE)))
        if LABEL_TIME in frame.columns:
            early = F.expr(f"INTERVAL {round(quality.clock_skew_seconds * 1_000_000)} MICROSECONDS")
            rules.append(("label_time is null, and the label is 1", F.col(LABEL_TIME).isNull() & text.isin(*POSITIVE)))
            rules.append(("label_time lies before time", F.col(LABEL_TIME) + early < time))
    return frame.withColumns({DAY: day, REASON: _reason(rules)})


def _plausible(moment: Column) -> Column:
    first, end = (dt.datetime(year, 1, 1, tzinfo=dt.timezone.utc) for year in (PLAUSIBLE_YEARS[0], PLAUSIBLE_YEARS[1] + 1))
    return (moment >= F.lit(first)) & (moment < F.lit(end))


def _reason(rules: Sequence[tuple[str, Column]]) -> Column:
    """The first rule that is broken."""
    # a comparison with a null in it is no breach: the rule on nulls has said so
    return F.coalesce(*[F.when(F.coalesce(broken, F.lit(False)), F.lit(words)) for words, broken in rules])


@dataclass(frozen=True)
class LogFacts:
    """What one event log has, day by day: its rows, those that break a rule, and the last moment.

    ``rows`` counts all rows; ``positives`` those with label 1, where there is a label; ``broken`` is by day and rule; the day is
    None for rows that no day can be said of. ``latest`` is the time of the last row that breaks no rule, microseconds since 1970.
    """

    rows: Mapping[dt.date | None, int]
    positives: Mapping[dt.date | None, int]
    broken: Mapping[dt.date | None, Mapping[str, int]]
    latest: Mapping[dt.date | None, int]

    def within(self, first: dt.date, last: dt.date) -> LogFacts:
        """Those of some days, and of rows that no day can be said of."""

        def inside(facts: Mapping[dt.date | None, Fact]) -> dict[dt.date | None, Fact]:
            return {day: fact for day, fact in facts.items() if day is None or first <= day <= last}

        return LogFacts(inside(self.rows), inside(self.positives), inside(self.broken), inside(self.latest))


def count(marked: DataFrame) -> LogFacts:
    """Count a marked log, in one pass."""
    positives = F.count_if(is_positive(F.col("label"))) if "label" in marked.columns else F.lit(0)
    latest = F.max(F.unix_micros("time")) if "time" in marked.columns else F.lit(None)
    facts = marked.groupBy(DAY, REASON).agg(F.count("*").alias("rows"), positives.alias("positives"), latest.alias("latest"))
    rows: dict[dt.date | None, int] = defaultdict(int)
    positive: dict[dt.date | None, int] = defaultdict(int)
    broken: dict[dt.date | None, dict[str, int]] = defaultdict(dict)
    last: dict[dt.date | None, int] = {}
    for row in facts.collect():
        rows[row[DAY]] += row["rows"]
        if row[REASON] is None:
            positive[row[DAY]] += row["positives"]
            last[row[DAY]] = row["latest"]
        else:
            broken[row[DAY]][row[REASON]] = row["rows"]
    return LogFacts(rows, positive, broken, last)


def refuse(
    name: str, marked: DataFrame, facts: LogFacts, quality: Quality, days: Iterable[dt.date], span: str, judged: dt.date
) -> None:
    """Stop where a log cannot be used.

    Args:
        name: what to call the log in errors.
        marked: the log.
        facts: its counts.
        quality: the thresholds.
        days: days that must have events.
        span: which days the frame was cut to, in words.
        judged: the first day that is held against the thresholds. Earlier ones were, when their samples were built; of them a word is
            logged.

    Raises:
        LogError: no rows at all, more of a day's rows break a rule than are allowed, or a day is empty.
    """
    total = sum(facts.rows.values())
    if not total:
        raise LogError(f"{name}: no events {span}; correct the path, the condition (where) or the days asked for")
    refuse_broken(name, marked, facts, quality, judged)
    good = {day for day, rows in facts.rows.items() if rows > sum(facts.broken.get(day, {}).values())}
    empty = [day for day in days if day not in good]
    if empty:
        good_days = sorted(day for day in good if day is not None)
        raise LogError(
            f"{name}: no events on {', '.join(map(str, empty[:5]))}{' and other days' * (len(empty) > 5)} "
            f"(its events {span} run from {good_days[0] if good_days else '?'} to {good_days[-1] if good_days else '?'}); "
            "correct --from and --to, bring the missing days, or name them in log.empty_days"
        )


def refuse_broken(name: str, marked: DataFrame, facts: LogFacts, quality: Quality, judged: dt.date) -> None:
    """Stop where more rows of a log's day, or of a table, break a rule than are allowed; days before ``judged`` are only warned of.

    Raises:
        LogError: they do; it shows one of them.
    """
    for day, reasons in sorted(facts.broken.items(), key=lambda item: str(item[0])):
        # rows of no day have no day's rows to be compared with
        rows = facts.rows[day] if day is not None else sum(facts.rows.values())
        if sum(reasons.values()) > quality.max_quarantined * rows:
            if day is not None and day < judged:
                worst = max(reasons, key=lambda reason: reasons[reason])
                log.warning("%s: %s in %d of %d rows on %s, which are left out", name, worst, reasons[worst], rows, day)
                continue
            raise LogError(_threshold_passed(name, marked, day, reasons, rows, quality))


def _threshold_passed(
    name: str, marked: DataFrame, day: dt.date | None, reasons: Mapping[str, int], rows: int, quality: Quality
) -> str:
    worst = max(reasons, key=lambda reason: reasons[reason])
    columns = [c for c in (*IDS, "time", "valid_from", "arrived", "label", CORRUPT) if c in marked.columns]
    # as text: a time in a wrong unit may lie beyond what Python's datetime can hold
    example = (
        marked.where((F.col(REASON) == worst) & F.col(DAY).eqNullSafe(F.lit(day).cast("date")))
        .select(*[F.make_valid_utf8(F.substring(F.col(c).cast("string"), 1, 80)).alias(c) for c in columns])
        .first()
    )
    values = ", ".join(f"{c} {example[c]!r}" for c in columns if c != CORRUPT or example[c]) if example is not None else ""
    hint = next((text for part, text in _HINTS.items() if part in worst), "correct the log")
    others = sum(reasons.values()) - reasons[worst]
    when = f" on {day}" if day is not None else " of no day" if "time" in marked.columns else ""
    whose = "a day's" if when else "a table's"
    return (
        f"{name}: {worst} in {reasons[worst]} of {rows} rows{when}{f', and {others} break other rules' if others else ''}; "
        f"such as {values}. {hint[0].upper()}{hint[1:]}; "
        f"quality.max_quarantined allows {quality.max_quarantined:g} of {whose} rows"
    )
