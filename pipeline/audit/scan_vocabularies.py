"""Vocabularies and transforms beside the days that they were made from: does any of them know what came later?"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mian.contract import Split
from pipeline.audit.findings import Finding
from pipeline.audit.published_samples import Published
from pipeline.audit.raw_fields import Member, Members
from pipeline.audit.recompute import day_of, midnight
from pipeline.audit.recorded import recorded_events
from pipeline.audit.scan_histories import behavior_events
from pipeline.audit.tables import DAY_MICROS, Tables
from pipeline.audit.training_rows import possible_values, shown_rows
from pipeline.config import DataConfig

#: Of a mean, beside it or the deviation, whichever is greater. Contracts have six digits.
TOLERANCE = 1e-4
#: Greater numbers are cut when they are encoded, and nothing is fitted on them.
FLOAT32_MAX = 3.4028234663852886e38

_USED = ["user", "vocabulary", "value"]


class VocabularyScan:
    """What vocabularies and transforms were made from.

    Args:
        published: the data set.
        tables: the logs.
        config: its rules.
        fields: its fields.
    """

    def __init__(self, published: Published, tables: Tables, config: DataConfig, fields: Members) -> None:
        self._published = published
        self._tables = tables
        self._config = config
        self._fields = fields
        self._drawn = config.log.kind == "positives_only"
        self.checked: list[str] = []
        self.notes: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """What vocabularies and transforms know that they should not, or say that is not so."""
        spans = self._published.contract.vocabulary_days
        train = self._config.splits["train"]
        if not spans:
            self.notes.append("the contract does not say what days its vocabularies are of; taken for the training days")
            spans = (train,)
        for span, (name, split) in itertools.product(spans, self._config.splits.items()):
            touched = span.first <= split.last and split.first <= span.last
            if name != "train" and touched:
                days = f"made from {span.first} to {span.last}"
                yield Finding("vocabulary", days, f"split {name} from {split.first} to {split.last}, which is held out")
        if spans[-1].last > train.last:
            yield Finding("vocabulary", f"made from days up to {spans[-1].last}", f"training days up to {train.last}")
        spans = tuple(Split(first=span.first, last=min(span.last, train.last)) for span in spans if span.first <= train.last)
        if not spans:
            return
        impressions = _union(shown_rows(self._tables, self._config, self._fields, span) for span in spans)
        impressions = impressions.persist(StorageLevel.MEMORY_AND_DISK)
        past = _union(self._past(span) for span in spans).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            yield from self._vocabularies(impressions, past, Split(first=spans[0].first, last=spans[-1].last))
            yield from self._transforms(impressions, past)
        finally:
            impressions.unpersist()
            past.unpersist()

    def _past(self, span: Split) -> DataFrame:
        if self._config.recorded:
            return recorded_events(self._tables, self._config, self._fields.behavior_values, span)
        events = behavior_events(self._tables, self._config, self._fields.behavior_values)
        reach = self._config.history.days * DAY_MICROS + round(self._config.history.lag_hours * 3_600_000_000)
        zone = self._config.day_time_zone
        begin, end = midnight(span.first, zone) - reach, midnight(span.last + dt.timedelta(days=1), zone)
        counted = (F.col("time") >= begin) & (F.greatest("time", "seen") < end)
        for split in self._config.splits.values():  # days with samples whose impressions are not counted
            last = min(split.last, span.first - dt.timedelta(days=1))
            if split.first <= last:
                first, after = midnight(split.first, zone), midnight(last + dt.timedelta(days=1), zone)
                counted = counted & ~F.col("time").between(first, after - 1)
        return events.where(counted)

    def _vocabularies(self, impressions: DataFrame, past: DataFrame, span: Split) -> Iterator[Finding]:
        listed = {name for name, options in self._config.vocabularies.items() if options.values is not None}
        names = [name for name in self._published.tables if name not in listed and name in self._config.vocabulary_names()]
        counts = self._occurrences(impressions, past)
        rows = counts.groupBy("vocabulary", "value").agg(F.sum("count").alias("count")).where(F.col("vocabulary").isin(names))
        occurred: dict[str, dict[str, int]] = {name: {} for name in names}
        for batch in rows.toArrow().to_batches():
            for vocabulary, value, count in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                occurred[vocabulary][value] = count
        unseen = {
            name: [v for v in self._published.tables[name]["value"].to_pylist() if v not in occurred[name]] for name in names
        }
        if self._drawn and any(unseen.values()):
            candidates = [member for member in self._fields.shown if self._draws_anew(member)]
            possible, uncheckable = possible_values(self._tables, self._config, candidates, span)
            self._leave_out(unseen, possible, uncheckable)
        yield from self._future(unseen, span)
        exact = [name for name in names if self._is_exact(name)]
        for name in exact:
            yield from self._recounted(name, occurred[name])
        total = sum(self._published.tables[name].num_rows for name in names)
        self.checked.append(f"vocabulary values from {span.first} to {span.last}: {total:,} of {len(names)} vocabularies")
        self.checked.append(f"counts of values: {len(exact)} of these vocabularies")

    def _leave_out(self, unseen: dict[str, list[str]], possible: DataFrame | None, uncheckable: Sequence[Member]) -> None:
        """Values that drawn negatives can have brought."""
        for member in uncheckable:
            if unseen.pop(member.vocabulary, None):
                self.notes.append(f"{member.column}: values that drawn negatives alone may have brought were not looked for")
        wanted = [value for values in unseen.values() for value in values]
        if possible is not None and wanted:
            rows = possible.where(F.col("value").isin(wanted)).distinct().collect()
            found = {(row["vocabulary"], row["value"]) for row in rows}
            for name, values in unseen.items():
                unseen[name] = [value for value in values if (name, value) not in found]

    def _occurrences(self, impressions: DataFrame, past: DataFrame) -> DataFrame:
        """``vocabulary``, ``value``, ``count``: the impressions that have the value, and the users who only have it in behaviors."""
        in_impressions = _words(impressions, (*self._fields.shown, *self._fields.profile))
        in_behaviors = _words(past, self._fields.behavior_values).select("user", "vocabulary", "value").distinct()
        others = in_behaviors.join(in_impressions.select("user", "vocabulary", "value").distinct(), _USED, "left_anti")
        together = in_impressions.select("vocabulary", "value").unionByName(others.select("vocabulary", "value"))
        return together.groupBy("vocabulary", "value").count()

    def _is_exact(self, name: str) -> bool:
        """Whether the counts of a vocabulary follow from the log: not where values of drawn negatives count, or it was extended."""
        drawn = any(self._draws_anew(member) for member in self._fields.shown if self._uses(member, name))
        return not drawn and not self._published.extended

    def _draws_anew(self, member: Member) -> bool:
        """Whether a drawn negative's value is neither its item's nor its positive's."""
        return self._drawn and member.column not in self._fields.item_free | self._fields.item_only

    @staticmethod
    def _uses(member: Member, name: str) -> bool:
        return member.config.kind == "categorical" and member.vocabulary == name

    def _future(self, unseen: dict[str, list[str]], span: Split) -> Iterator[Finding]:
        """Values that occur on none of the days: when do they?"""
        wanted = [value for values in unseen.values() for value in values]
        if not wanted:
            return
        last = max(day.day for day in self._published.contract.days)
        later = Split(first=span.last + dt.timedelta(days=1), last=max(last, span.last + dt.timedelta(days=1)))
        frames = [
            _words(shown_rows(self._tables, self._config, self._fields, later), (*self._fields.shown, *self._fields.profile)),
            _words(
                self._past(later).where(F.col("time") >= midnight(later.first, self._config.day_time_zone)),
                self._fields.behavior_values,
            ),
        ]
        first = (
            frames[0].unionByName(frames[1]).where(F.col("value").isin(wanted)).groupBy("vocabulary", "value").agg(F.min("time"))
        )
        known = {(row[0], row[1]): row[2] for row in first.collect()}
        for name, values in unseen.items():
            for value in values:
                when = known.get((name, value))
                words = (
                    f"that it first occurs on {day_of(when, self._config.day_time_zone)}"
                    if when is not None
                    else "that it does not occur"
                )
                logs = f"{words}; the vocabulary is of {span.first} to {span.last}"
                yield Finding("vocabulary", f"the value {value!r}", logs, column=name)

    def _recounted(self, name: str, occurred: dict[str, int]) -> Iterator[Finding]:
        table = self._published.tables[name]
        for value, count in zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True):
            if value in occurred and occurred[value] != count:
                yield Finding("vocabulary", f"the value {value!r} {count} times", f"{occurred[value]} times", column=name)

    def _transforms(self, impressions: DataFrame, past: DataFrame) -> Iterator[Finding]:
        numeric = [member for member in self._fields.all if member.contract.transform is not None]
        if self._published.extended or (self._drawn and any(m.contract.group != "behaviors" for m in numeric)):
            reason = "vocabularies were extended since" if self._published.extended else "negatives count in them"
            self.notes.append(f"transforms were not fitted again: {reason}")
            numeric = [] if self._published.extended else [m for m in numeric if m.contract.group == "behaviors"]
        for frame, group in ((impressions, False), (past, True)):
            members = [member for member in numeric if (member.contract.group == "behaviors") == group]
            if members:
                yield from _fitted(frame, members)
        if numeric:
            self.checked.append(f"transforms fitted again: {len(numeric)}")


def _fitted(frame: DataFrame, members: Sequence[Member]) -> Iterator[Finding]:
    parts = []
    for member in members:
        x = F.col(member.column)
        assert member.contract.transform is not None
        value = F.signum(x) * F.log1p(F.abs(x)) if member.contract.transform.kind == "log" else x
        value = F.when(~F.isnan(x) & (F.abs(value) <= FLOAT32_MAX), value)
        parts += [F.avg(value).alias(f"mean_{member.column}"), F.stddev_pop(value).alias(f"std_{member.column}")]
    row = frame.agg(*parts).collect()[0]
    for member in members:
        transform = member.contract.transform
        assert transform is not None
        mean, std = row[f"mean_{member.column}"] or 0.0, row[f"std_{member.column}"] or 0.0
        std = std if std > 1e-12 * abs(mean) else 1.0
        near = math.isclose(transform.std, std, rel_tol=TOLERANCE)
        if not near or abs(transform.mean - mean) > TOLERANCE * max(abs(mean), std):
            held = f"mean {transform.mean:g} and deviation {transform.std:g}"
            yield Finding("transform", held, f"mean {mean:g} and deviation {std:g} on the training days", column=member.column)


def _words(frame: DataFrame, members: Sequence[Member]) -> DataFrame:
    """``user``, ``time``, ``vocabulary`` and ``value``: each value of each row once a vocabulary, whatever the fields that hold it."""
    text = [member for member in members if member.config.kind == "categorical"]
    pairs = F.array(*[F.struct(F.lit(m.vocabulary).alias("vocabulary"), F.col(m.column).alias("value")) for m in text])
    if not text:
        pairs = F.array().cast("array<struct<vocabulary:string,value:string>>")
    words = frame.select("user", "time", F.explode(F.array_distinct(pairs)).alias("_pair"))
    return words.select("user", "time", "_pair.*").where(F.col("value").isNotNull())


def _union(frames: Iterable[DataFrame]) -> DataFrame:
    return functools.reduce(DataFrame.unionByName, frames)
