"""Building some days: joined, encoded, written, summed up; published by :mod:`pipeline.build`."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mian.contract import Contract, Day, SampleFile, Split
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import day_fingerprint
from pipeline.dataset.folder import DatasetFolder
from pipeline.dataset.quality import day_quality, in_words, refuse_day
from pipeline.dataset.run import BuiltDays
from pipeline.dataset.sample_writer import NAME_DIGITS, Staged, WrittenDay, stage_files
from pipeline.dataset.schedule import Schedule, passes, schedule, spans
from pipeline.dataset.vocabulary_store import VocabularyStore
from pipeline.days import ONE_DAY, day_number, microseconds
from pipeline.encoding.sample_files import EncodePlan, encode_files
from pipeline.encoding.statistics import total
from pipeline.join.outputs import MATCHES, REJECTED, SAMPLES
from pipeline.join.plan import files_of
from pipeline.join.quarantine import packed_quarantine
from pipeline.join.spark_join import join_days
from pipeline.join.unmatched import refuse_unmatched
from pipeline.logs.errors import LogError
from pipeline.logs.events import EventLogs, Events

log = logging.getLogger(__name__)

#: Files that one task encodes, one after the other. Each task costs a Python worker about 0.4 s before it begins.
FILES_PER_PARTITION = 16


class SparkBuilder:
    """Makes days and vocabularies from the logs; see :class:`pipeline.dataset.run.Builder`.

    Args:
        spark: the session.
        config: the data set.
        folder: where it lies.
        published: what readers read now.
    """

    def __init__(self, spark: SparkSession, config: DataConfig, folder: DatasetFolder, published: Contract | None = None) -> None:
        self._spark = spark
        self._config = config
        self._vocabularies = VocabularyStore(spark, config, folder)
        self._logs = EventLogs(spark, config)
        self._published = published.days if published is not None else ()
        self._input_days: Mapping[dt.date, Mapping[str, tuple[Split, ...]]] = {}
        self._read: tuple[list[dt.date], Events] | None = None

    def schedule(self, finished: Mapping[dt.date, Day], vocabularies: str, days: Iterable[dt.date]) -> Schedule:
        """Which days are missing or out of date."""
        found = schedule(self._spark, self._config, finished, vocabularies, days, self._published)
        self._input_days = found.input_days
        return found

    def extended(self, base: Contract) -> BuiltDays:
        """The vocabularies of a contract, with values of later training days."""
        return self._alone(self._vocabularies.extended(base))

    def vocabularies(self) -> BuiltDays:
        """Vocabularies alone."""
        return self._alone(self._vocabularies.make())

    def passes(self, days: list[dt.date]) -> Iterator[list[dt.date]]:
        """Days of about ``rows_per_pass`` samples together."""
        yield from passes(days, self._events(days).rows, self._config.rows_per_pass)

    def build(
        self,
        base: Contract | None,
        days: list[dt.date],
        inputs: Mapping[dt.date, str],
        contents: Mapping[str, bytes],
        staging: str,
    ) -> BuiltDays:
        """Build some days without gaps, and the vocabularies where there are none yet.

        Raises:
            LogError: a log cannot be used, a day has no samples, or passes a threshold.
        """
        events = self._events(days)
        small = dict(contents)
        train = self._config.splits["train"]
        whole = base is None and days[0] <= train.first and days[-1] >= train.last
        if base is None and not whole:
            made = self.vocabularies()
            base, small = made.base, dict(made.contents)
        fit_days = train if whole else None
        joined = join_days(self._spark, self._config, events, days, fit_days=fit_days, samples=True)
        if whole:
            joined = joined.persist(StorageLevel.DISK_ONLY)
        try:
            if base is None:
                made = self._alone(self._vocabularies.make_from(joined))
                base, small = made.base, dict(made.contents)
            staged = self._staged(base, events, joined, days, staging)
            matched = {day: total(found.counts)["matched"] for day, found in staged.days.items()}
            refuse_unmatched(self._spark, self._config, matched)
            fingerprints = {day: day_fingerprint(self._config, day, base.vocabulary_fingerprint, inputs[day]) for day in days}
            built = {
                day: self._day(base, events, day, fingerprints[day], inputs[day], staged.days.get(day), small) for day in days
            }
        finally:
            joined.unpersist()
        self._vocabularies.pending.clear()  # from now on they are in the folder
        return BuiltDays(base, built, staged.names, small)

    def is_final(self, day: dt.date) -> bool:
        """Whether the configuration says that the labels of a day cannot change any more."""
        return is_final(self._config, None, day)

    def _alone(self, contract: Contract) -> BuiltDays:
        return BuiltDays(contract, {}, {}, dict(self._vocabularies.pending))

    def _events(self, days: list[dt.date]) -> Events:
        if self._read is None or self._read[0] != days:
            self._read = days, self._logs.read(days[0], days[-1])
        return self._read[1]

    def _staged(self, base: Contract, events: Events, joined: DataFrame, days: list[dt.date], staging: str) -> Staged:
        config = self._config
        examples = {}
        for day in days:
            rows = events.rows.get(day, 0)
            if rows and day not in config.splits["train"]:
                examples[day_number(day)] = config.examples_per_day * files_of(config, events.rows, day) / rows
        tables = {name: table.column("value").combine_chunks() for name, table in self._vocabularies.tables(base).items()}
        broadcast = self._spark.sparkContext.broadcast(tables)
        blobs = joined.where(F.col("kind").isin(SAMPLES, REJECTED, MATCHES))
        if any(facts.broken for facts in events.facts.values()):
            blobs = blobs.unionByName(packed_quarantine(events.quarantine))
        files = sum(files_of(config, events.rows, day) for day in days)
        cores = self._spark.sparkContext.defaultParallelism
        partitions = min(files, max(cores, -(-files // FILES_PER_PARTITION)))
        # the contract travels to the workers without the days that it has, which may be many
        plan = EncodePlan(base.model_copy(update={"days": ()}), examples)
        staged = stage_files(self._spark, encode_files(blobs, plan, broadcast, partitions), staging)
        broadcast.destroy()
        written = staged.days
        lost = [day for day in days if not config.log.may_be_empty(day) and not written.get(day, WrittenDay()).files]
        if lost:
            rejected = {day: in_words(written[day].rejected) for day in lost if day in written and written[day].rejected}
            why = ", ".join(f"on {day} {words}" for day, words in rejected.items())
            raise LogError(
                f"no samples were made for {spans(lost)}, though the log has impressions then: "
                + (f"{why}; correct the log" if why else "sampling.negatives keeps none of them; keep more")
            )
        return staged

    def _day(
        self,
        base: Contract,
        events: Events,
        day: dt.date,
        mark: str,
        inputs: str,
        written: WrittenDay | None,
        contents: dict[str, bytes],
    ) -> Day:
        """Sum up a day; its statistics are added to ``contents``, the small files that are to be written."""
        written = written if written is not None else WrittenDay()
        counts = total(written.counts)
        quality = day_quality(base, events, day, counts, written.rejected, self._config.sampled(day))
        refuse_day(self._config, day, quality, counts["rows"])
        if quality.clicks == 0 and quality.log_rows:
            log.warning("%s: not one click in log.clicks; is the log complete?", day)
        statistics = None
        if counts["rows"]:
            del counts["matched"]  # it is in the contract
            content = json.dumps(counts, separators=(",", ":")).encode()
            sha256 = hashlib.sha256(content).hexdigest()
            path = f"day={day}/statistics-{sha256[:NAME_DIGITS]}.json"
            contents[path] = content
            statistics = SampleFile(path=path, rows=1, bytes=len(content), sha256=sha256)
        return Day(
            day=day,
            rows=counts["rows"],
            positives=counts["positives"],
            fingerprint=mark,
            inputs=inputs,
            input_days=dict(self._input_days[day]),
            files=tuple(written.files),
            examples=written.examples,
            statistics=statistics,
            quarantine=written.quarantine,
            quality=quality,
            vocabulary_version=base.vocabulary_version,
            negatives_kept=self._config.sampled(day),
            final=is_final(self._config, events, day),
        )


def is_final(config: DataConfig, events: Events | None, day: dt.date) -> bool:
    """Whether no click can change a label of the day any more, as far as the configuration or the clicks themselves say."""
    if config.log.clicks is None:
        return True
    calendar = config.calendar
    end = calendar.start(day + ONE_DAY) + microseconds(config.log.attribution)
    if config.log.complete_to is not None:
        return end <= calendar.start(config.log.complete_to + ONE_DAY)
    # a click at or after the end of the window says that the log has got there; one earlier on that day does not
    return events is not None and any(last >= end for last in events.facts["log.clicks"].latest.values())
