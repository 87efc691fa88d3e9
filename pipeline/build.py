"""Building samples day by day: what is missing or out of date, and nothing else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import DataConfig
from pipeline.contract import Contract, ContractError, Day
from pipeline.days import day_number, microseconds
from pipeline.encode import EncodePlan, encode_files
from pipeline.events import ONE_DAY, EventLogs, Events
from pipeline.findings import day_quality, in_words, refuse_day
from pipeline.fingerprints import code_fingerprint, day_fingerprint, settings_fingerprint
from pipeline.join.blobs import ipc_bytes
from pipeline.join.days import join_days
from pipeline.join.plan import files_of
from pipeline.join.worker import MATCHES, NO_FILE, OUTPUT, REJECTED, SAMPLES
from pipeline.lock import DatasetLock
from pipeline.log_errors import LogError, log_errors
from pipeline.matching import refuse_unmatched
from pipeline.publish import Publisher, WrittenDay
from pipeline.schedule import passes, runs, schedule, spans, usable
from pipeline.statistics import total
from pipeline.vocabulary_store import VocabularyStore

log = logging.getLogger(__name__)

#: Files that one task encodes, one after the other. Each task costs a Python worker about 0.4 s before it begins.
FILES_PER_PARTITION = 16


@dataclass(frozen=True)
class BuildReport:
    """What a build did: the days it wrote and the days it left as they were."""

    built: tuple[dt.date, ...]
    kept: tuple[dt.date, ...]
    contract: Contract


@dataclass(frozen=True)
class PlannedDay:
    """What a build would do with a day: ``reason`` is empty where it would leave it as it is. ``rows`` is about how many it has."""

    day: dt.date
    reason: str
    rows: int


def build_samples(
    spark: SparkSession,
    config: DataConfig,
    first: dt.date,
    last: dt.date,
    *,
    extend_vocabularies: bool = False,
    wait: float = 0.0,
) -> BuildReport:
    """Build the days from ``first`` to ``last`` that are missing, or whose logs, configuration or code changed.

    Days are published with the contract that names their files, so that a build that is stopped leaves the data set as it was, or
    with some more days, all whole.

    Args:
        spark: the session.
        config: the data set.
        first: first day, in the configuration's ``day_time_zone``.
        last: last day.
        extend_vocabularies: give ids to values of training days that came after those that the vocabularies were made from.
        wait: seconds to wait for another build of the same data set.

    Raises:
        LogError: a log cannot be used, or a day passes a threshold.
        ContractError: the folder holds a contract that this release cannot read, or another build is at work in it.
    """
    publisher = Publisher(spark, config.samples)
    with log_errors(config), DatasetLock(publisher.storage, config.samples, wait):
        try:
            return _Build(spark, config, publisher, extend_vocabularies).run(first, last)
        except (LogError, ContractError, PySparkException, Py4JError):
            publisher.clean(publisher.contract())
            raise


def plan_build(spark: SparkSession, config: DataConfig, first: dt.date, last: dt.date) -> list[PlannedDay]:
    """What :func:`build_samples` would do; nothing is written.

    Raises:
        LogError: a log cannot be used.
        ContractError: the folder holds a contract that this release cannot read.
    """
    with log_errors(config):
        before = Publisher(spark, config.samples).contract()
        base = usable(config, before)
        plan = schedule(spark, config, base, first, last)
        if before is not None and base is None:
            reason = "configuration or code changed, vocabularies are made anew"
            plan = dataclasses.replace(plan, reasons=dict.fromkeys(plan.reasons, reason))
        rows = {day: plan.finished[day].rows for day in plan.kept}
        for span in runs(plan.stale):
            rows |= EventLogs(spark, config).read(span[0], span[-1]).rows
    return [PlannedDay(day, reason, rows.get(day, 0)) for day, reason in plan.reasons.items()]


class _Build:
    def __init__(self, spark: SparkSession, config: DataConfig, publisher: Publisher, extend_vocabularies: bool) -> None:
        self._spark = spark
        self._config = config
        self._publisher = publisher
        self._extend = extend_vocabularies
        self._logs = EventLogs(spark, config)
        self._vocabularies = VocabularyStore(spark, config, publisher)

    def run(self, first: dt.date, last: dt.date) -> BuildReport:
        config, publisher = self._config, self._publisher
        published = publisher.contract()
        base = usable(config, published)
        if published is not None and base is None:
            log.info("vocabularies: the configuration or the code changed, all days are built anew")
        publisher.clean(published)
        if base is not None and self._extend:
            base = self._vocabularies.extended(base)
        plan = schedule(self._spark, config, base, first, last)
        if plan.kept:
            log.info("%d of %d days are finished and unchanged: %s", len(plan.kept), len(plan.reasons), spans(plan.kept))
        if plan.stale:
            log.info("building %d days: %s", len(plan.stale), spans(plan.stale))
        finished = dict(plan.finished)
        for run in runs(plan.stale):
            events = self._logs.read(run[0], run[-1])
            for part in passes(run, events.rows, config.rows_per_pass):
                if part != run:
                    events = self._logs.read(part[0], part[-1])
                base, built = self._pass(base, events, part, plan.inputs)
                finished |= built
                published = self._contract(base, finished)
                publisher.publish(published)
        contract = self._contract(base if base is not None else self._vocabularies.make(), finished)
        if contract != published:
            publisher.publish(contract)
        return BuildReport(plan.stale, plan.kept, contract)

    def _contract(self, base: Contract, finished: Mapping[dt.date, Day]) -> Contract:
        return base.model_copy(
            update={
                "name": self._config.name,
                "splits": self._config.splits,
                "config_fingerprint": settings_fingerprint(self._config),
                "code_fingerprint": code_fingerprint(),
                "days": tuple(
                    finished[day].model_copy(update={"final": finished[day].final or _final(self._config, None, day)})
                    for day in sorted(finished)
                ),
            }
        )

    def _pass(
        self, base: Contract | None, events: Events, days: list[dt.date], inputs: Mapping[dt.date, str]
    ) -> tuple[Contract, dict[dt.date, Day]]:
        """Build some days without gaps, and the vocabularies where there are none yet."""
        train = self._config.splits["train"]
        whole = base is None and days[0] <= train.first and days[-1] >= train.last
        if base is None and not whole:
            base = self._vocabularies.make()
        fit_days = train if whole else None
        joined = join_days(self._spark, self._config, events, days, fit_days=fit_days, samples=True)
        if whole:
            joined = joined.persist(StorageLevel.DISK_ONLY)
        try:
            base = base if base is not None else self._vocabularies.make_from(joined)
            marks = {day: day_fingerprint(self._config, day, base.vocabulary_fingerprint, inputs[day]) for day in days}
            written = self._written(base, events, joined, marks)
        finally:
            joined.unpersist()
        refuse_unmatched(self._spark, self._config, {day: total(found.counts)["matched"] for day, found in written.items()})
        finished = {day: self._day(base, events, day, marks[day], inputs[day], written.get(day)) for day in days}
        return base, finished

    def _written(
        self, base: Contract, events: Events, joined: DataFrame, marks: Mapping[dt.date, str]
    ) -> dict[dt.date, WrittenDay]:
        config = self._config
        examples = {}
        for day in marks:
            rows = events.rows.get(day, 0)
            if rows and day not in config.splits["train"]:
                examples[day_number(day)] = config.examples_per_day * files_of(config, events.rows, day) / rows
        tables = {name: table.column("value").combine_chunks() for name, table in self._vocabularies.tables(base).items()}
        broadcast = self._spark.sparkContext.broadcast(tables)
        blobs = joined.where(F.col("kind").isin(SAMPLES, REJECTED, MATCHES))
        if any(facts.broken for facts in events.facts.values()):
            blobs = blobs.unionByName(_packed(events.quarantine))
        files = sum(files_of(config, events.rows, day) for day in marks)
        cores = self._spark.sparkContext.defaultParallelism
        partitions = min(files, max(cores, -(-files // FILES_PER_PARTITION)))
        # the contract travels to the workers without the days that it has, which may be many
        plan = EncodePlan(base.model_copy(update={"days": ()}), examples)
        written = self._publisher.write_files(encode_files(blobs, plan, broadcast, partitions), marks)
        broadcast.destroy()
        lost = [day for day in marks if not config.log.may_be_empty(day) and not written.get(day, WrittenDay()).files]
        if lost:
            rejected = {day: in_words(written[day].rejected) for day in lost if day in written and written[day].rejected}
            why = ", ".join(f"on {day} {words}" for day, words in rejected.items())
            raise LogError(
                f"no samples were made for {spans(lost)}, though the log has impressions then: "
                + (f"{why}; correct the log" if why else "sampling.negatives keeps none of them; keep more")
            )
        return written

    def _day(self, base: Contract, events: Events, day: dt.date, mark: str, inputs: str, written: WrittenDay | None) -> Day:
        written = written if written is not None else WrittenDay()
        counts = total(written.counts)
        quality = day_quality(base, events, day, counts, written.rejected, self._config.sampled(day))
        refuse_day(self._config, day, quality, counts["rows"])
        statistics = None
        if counts["rows"]:
            del counts["matched"]  # it is in the contract
            content = json.dumps(counts, separators=(",", ":")).encode()
            statistics = self._publisher.write(f"day={day}/statistics-{mark[:12]}.json", content, 1)
        return Day(
            day=day,
            rows=counts["rows"],
            positives=counts["positives"],
            fingerprint=mark,
            inputs=inputs,
            files=tuple(written.files),
            examples=written.examples,
            statistics=statistics,
            quarantine=written.quarantine,
            quality=quality,
            vocabulary_version=base.vocabulary_version,
            negatives_kept=self._config.sampled(day),
            final=_final(self._config, events, day),
        )


def _final(config: DataConfig, events: Events | None, day: dt.date) -> bool:
    """Whether no click can change a label of the day any more, as far as the configuration or the clicks themselves say."""
    if config.log.clicks is None:
        return True
    calendar = config.calendar
    end = calendar.start(day + ONE_DAY) + microseconds(config.log.attribution)
    if config.log.complete_to is not None:
        return end <= calendar.start(config.log.complete_to + ONE_DAY)
    # a click at or after the end of the window says that the log has got there; one earlier on that day does not
    return events is not None and any(last >= end for last in events.facts["log.clicks"].latest.values())


def _packed(quarantine: DataFrame) -> DataFrame:
    """Rows that break a rule, as the join gives its own."""

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            days = batch.column("day")
            for day in days.unique():
                rows = pa.Table.from_batches([batch]).filter(pa.compute.equal(days, day)).select(["reason", "row"])
                columns = {
                    "kind": [REJECTED],
                    "day": pa.array([day.as_py()], pa.date32()),
                    "file": pa.array([NO_FILE], pa.int32()),
                }
                yield pa.RecordBatch.from_pydict({**columns, "payload": [ipc_bytes(rows)]})

    return quarantine.mapInArrow(pack, OUTPUT)
