"""Building samples day by day: what is missing or out of date, and nothing else."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config import DataConfig
from pipeline.contract import Contract, ContractError, Day, History, Label, Split, vocabulary_from_parquet, vocabulary_to_parquet
from pipeline.encode import EncodePlan, encode_files
from pipeline.events import ONE_DAY, EventLogs, Events, days_between
from pipeline.findings import day_quality, refuse_day
from pipeline.fingerprints import (
    code_fingerprint,
    day_fingerprint,
    input_fingerprints,
    settings_fingerprint,
    vocabulary_fingerprint,
)
from pipeline.join.blobs import ipc_bytes
from pipeline.join.plan import day_number, files_of, join_plan
from pipeline.join.worker import NO_FILE, OUTPUT, REJECTED, SAMPLES, join_by_user
from pipeline.lock import DatasetLock
from pipeline.logs import LogError
from pipeline.publish import Publisher, WrittenDay
from pipeline.rows import all_rows
from pipeline.statistics import total
from pipeline.vocabularies import Fitted, TrainingDays, extend, fit, references

log = logging.getLogger(__name__)

#: Impressions that one Python worker joins at a time, with their behaviors: about a gigabyte where histories are long.
ROWS_PER_PARTITION = 500_000


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
        first: first day, UTC.
        last: last day.
        extend_vocabularies: give ids to values of training days that came after those that the vocabularies were made from.
        wait: seconds to wait for another build of the same data set.

    Raises:
        LogError: a log cannot be used, or a day passes a threshold.
        ContractError: the folder holds a contract that this release cannot read, or another build is at work in it.
    """
    publisher = Publisher(spark, config.samples)
    with DatasetLock(publisher.storage, config.samples, wait):
        return _Build(spark, config, publisher, extend_vocabularies).run(first, last)


def plan_build(spark: SparkSession, config: DataConfig, first: dt.date, last: dt.date) -> list[PlannedDay]:
    """What :func:`build_samples` would do; nothing is written.

    Raises:
        LogError: a log cannot be used.
        ContractError: the folder holds a contract that this release cannot read.
    """
    publisher = Publisher(spark, config.samples)
    before = publisher.contract()
    base = _usable(config, before)
    days = days_between(first, last)
    inputs = input_fingerprints(spark, config, days)
    finished = {day.day: day for day in base.days} if base is not None else {}
    mark = base.vocabulary_fingerprint if base is not None else vocabulary_fingerprint(config)
    reasons = {day: _reason(config, finished.get(day), mark, day, inputs[day]) for day in days}
    if before is not None and base is None:
        reasons = dict.fromkeys(days, "configuration or code changed, vocabularies are made anew")
    rows = {day: finished[day].rows for day in days if not reasons[day]}
    for span in runs(day for day in days if reasons[day]):
        rows |= EventLogs(spark, config).read(span[0], span[-1]).rows
    return [PlannedDay(day, reasons[day], rows.get(day, 0)) for day in days]


class _Build:
    def __init__(self, spark: SparkSession, config: DataConfig, publisher: Publisher, extend_vocabularies: bool) -> None:
        self._spark = spark
        self._config = config
        self._publisher = publisher
        self._extend = extend_vocabularies
        self._logs = EventLogs(spark, config)

    def run(self, first: dt.date, last: dt.date) -> BuildReport:
        config, publisher = self._config, self._publisher
        before = publisher.contract()
        base = _usable(config, before)
        if before is not None and base is None:
            log.info("vocabularies: the configuration or the code changed, all days are built anew")
        publisher.clean(before)
        if base is not None and self._extend:
            base = self._extended(base)
        inputs = input_fingerprints(self._spark, config, days_between(first, last))
        finished = {day.day: day for day in base.days} if base is not None else {}
        mark = base.vocabulary_fingerprint if base is not None else vocabulary_fingerprint(config)
        stale = [day for day in inputs if _reason(config, finished.get(day), mark, day, inputs[day])]
        kept = tuple(day for day in inputs if day not in stale)
        if kept:
            log.info("%d of %d days are finished and unchanged: %s", len(kept), len(inputs), spans(kept))
        if stale:
            log.info("building %d days: %s", len(stale), spans(stale))
        for run in runs(stale):
            events = self._logs.read(run[0], run[-1])
            for part in _passes(run, events.rows, config.rows_per_pass):
                if part != run:
                    events = self._logs.read(part[0], part[-1])
                try:
                    base, built = self._pass(base, events, part, inputs)
                except (LogError, ContractError):
                    publisher.clean(publisher.contract())
                    raise
                finished |= built
                base = self._published(base, finished)
        if base is None:
            base = self._fitted()
        contract = self._contract(base, finished)
        if contract != before:
            publisher.publish(contract)
        return BuildReport(tuple(stale), kept, contract)

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

    def _published(self, base: Contract, finished: Mapping[dt.date, Day]) -> Contract:
        contract = self._contract(base, finished)
        self._publisher.publish(contract)
        return contract

    def _pass(
        self, base: Contract | None, events: Events, days: list[dt.date], inputs: Mapping[dt.date, str]
    ) -> tuple[Contract, dict[dt.date, Day]]:
        """Build some days without gaps, and the vocabularies where there are none yet."""
        train = self._config.splits["train"]
        whole = base is None and days[0] <= train.first and days[-1] >= train.last
        if base is None and not whole:
            base = self._fitted()
        joined = self._joined(events, days, train if whole else None, samples=True)
        if whole:
            joined = joined.persist(StorageLevel.DISK_ONLY)
        try:
            base = base if base is not None else self._fit(joined, train)
            marks = {day: day_fingerprint(self._config, day, base.vocabulary_fingerprint, inputs[day]) for day in days}
            written = self._written(base, events, joined, marks)
        finally:
            joined.unpersist()
        finished = {day: self._day(base, events, day, marks[day], inputs[day], written.get(day)) for day in days}
        return base, finished

    def _joined(self, events: Events, days: list[dt.date], fit_days: Split | None, *, samples: bool) -> DataFrame:
        rows = all_rows(self._spark, self._config, events)
        plan = join_plan(self._config, events.rows, days, rows, fit_days=fit_days, samples=samples)
        cores = self._spark.sparkContext.defaultParallelism
        shown = sum(events.facts["log.impressions"].rows.values())
        return join_by_user(rows, plan, max(cores, -(-shown // ROWS_PER_PARTITION)))

    def _written(
        self, base: Contract, events: Events, joined: DataFrame, marks: Mapping[dt.date, str]
    ) -> dict[dt.date, WrittenDay]:
        config = self._config
        examples = {}
        for day in marks:
            rows = events.rows.get(day, 0)
            if rows and day not in config.splits["train"]:
                examples[day_number(day)] = config.examples_per_day * files_of(config, events.rows, day) / rows
        tables = {name: table.column("value").combine_chunks() for name, table in self._tables(base).items()}
        broadcast = self._spark.sparkContext.broadcast(tables)
        blobs = joined.where(F.col("kind").isin(SAMPLES, REJECTED))
        if any(facts.broken for facts in events.facts.values()):
            blobs = blobs.unionByName(_packed(events.quarantine))
        files = sum(files_of(config, events.rows, day) for day in marks)
        cores = self._spark.sparkContext.defaultParallelism
        partitions = min(files, max(cores, -(-files // 4)))
        # the contract travels to the workers without the days that it has, which may be many
        plan = EncodePlan(base.model_copy(update={"days": ()}), examples)
        written = self._publisher.write_files(encode_files(blobs, plan, broadcast, partitions), marks)
        broadcast.destroy()
        lost = [day for day in marks if day not in config.log.empty_days and not written.get(day, WrittenDay()).files]
        if lost:
            raise LogError(
                f"no samples were made for {spans(lost)}, though the log has impressions then: all of them are in the quarantine"
            )
        return written

    def _day(self, base: Contract, events: Events, day: dt.date, mark: str, inputs: str, written: WrittenDay | None) -> Day:
        written = written if written is not None else WrittenDay()
        counts = total(written.counts)
        quality = day_quality(base, events, day, counts, written.rejected)
        refuse_day(self._config, day, quality, counts["rows"])
        statistics = None
        if written.counts:
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

    def _fitted(self) -> Contract:
        """Make the vocabularies alone; a contract with no days yet."""
        train = self._config.splits["train"]
        events = self._logs.read(train.first, train.last)
        joined = self._joined(events, days_between(train.first, train.last), train, samples=False)
        joined = joined.persist(StorageLevel.DISK_ONLY)
        try:
            return self._fit(joined, train)
        finally:
            joined.unpersist()

    def _fit(self, joined: DataFrame, train: Split) -> Contract:
        config = self._config
        log.info("making vocabularies from the training days %s to %s", train.first, train.last)
        days = TrainingDays(config, joined)
        fitted = fit(days)
        clicks, negatives = config.log.clicks is not None, config.log.negatives
        contract = Contract(
            name=config.name,
            fields=fitted.fields,
            vocabularies=(),
            vocabulary_fingerprint=vocabulary_fingerprint(config),
            vocabulary_days=train,
            history=History(**config.history.model_dump()),
            label=Label(
                kind=config.log.kind,
                attribution_hours=config.log.attribution_hours if clicks else None,
                attribution_by=config.log.attribution_by if clicks else None,
                negatives_per_positive=negatives.uniform + negatives.popularity if negatives is not None else None,
            ),
            splits=config.splits,
            config_fingerprint="",
            code_fingerprint="",
            days=(),
        )
        contract = self._with_tables(contract, fitted)
        return contract.model_copy(update={"reference": references(contract, fitted.tables, days)})

    def _extended(self, base: Contract) -> Contract:
        """Give ids to the values of the training days after those that the vocabularies were made from."""
        train, known = self._config.splits["train"], base.vocabulary_days
        assert known is not None
        first = max(train.first, known.last + ONE_DAY)
        if first > train.last:
            log.info("vocabularies: made from the training days up to %s already", known.last)
            return base
        log.info("extending vocabularies by the training days %s to %s", first, train.last)
        events = self._logs.read(first, train.last)
        joined = self._joined(events, days_between(first, train.last), Split(first=first, last=train.last), samples=False)
        joined = joined.persist(StorageLevel.DISK_ONLY)
        try:
            days = TrainingDays(self._config, joined)
            tables = {name: extend(days, name, table) for name, table in self._tables(base).items()}
        finally:
            joined.unpersist()
        sizes = {name: table.num_rows + 2 for name, table in tables.items()}
        specs = tuple(v.model_copy(update={"size": sizes.get(v.name, v.size)}) for v in base.vocabularies)
        grown = base.model_copy(
            update={
                "vocabulary_version": base.vocabulary_version + 1,
                "vocabulary_days": Split(first=known.first, last=train.last),
            }
        )
        return self._with_tables(grown, Fitted(base.fields, specs, tables))

    def _with_tables(self, contract: Contract, fitted: Fitted) -> Contract:
        """Write the tables of vocabularies, and name them."""
        folder = f"vocabularies/{contract.vocabulary_fingerprint[:12]}-v{contract.vocabulary_version}"
        vocabularies = []
        for vocabulary in fitted.vocabularies:
            if vocabulary.kind == "table":
                table, content = fitted.tables[vocabulary.name], io.BytesIO()
                vocabulary_to_parquet(table.column("value"), table.column("count"), content)
                file = self._publisher.write(f"{folder}/{vocabulary.name}.parquet", content.getvalue(), table.num_rows)
                vocabulary = vocabulary.model_copy(update={"path": file.path, "sha256": file.sha256})
            vocabularies.append(vocabulary)
        return contract.model_copy(update={"vocabularies": tuple(vocabularies)})

    def _tables(self, contract: Contract) -> dict[str, pa.Table]:
        tables = {}
        for vocabulary in contract.vocabularies:
            if vocabulary.path is not None:
                content = self._publisher.read(vocabulary.path)
                if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
                    raise ContractError(
                        f"{vocabulary.path}: does not have the checksum that the contract says; build into an empty folder"
                    )
                tables[vocabulary.name] = vocabulary_from_parquet(io.BytesIO(content))
        return tables


def _usable(config: DataConfig, contract: Contract | None) -> Contract | None:
    """The contract, if its vocabularies can stay: made by this configuration and code, and from no day that is held out now."""
    if contract is None or contract.vocabulary_fingerprint != vocabulary_fingerprint(config) or contract.vocabulary_days is None:
        return None
    made = contract.vocabulary_days
    held_out = [split for name, split in config.splits.items() if name != "train"]
    if made.last > config.splits["train"].last or any(s.first <= made.last and made.first <= s.last for s in held_out):
        return None
    return contract


def _reason(config: DataConfig, finished: Day | None, vocabularies: str, day: dt.date, inputs: str) -> str:
    """Why a day is to be built; nothing where it is finished and unchanged."""
    if finished is None:
        return "missing"
    if finished.fingerprint == day_fingerprint(config, day, vocabularies, inputs):
        return ""
    return "its logs changed" if finished.inputs != inputs else "configuration or code changed"


def _final(config: DataConfig, events: Events | None, day: dt.date) -> bool:
    """Whether no click can change a label of the day any more, as far as the configuration or the clicks themselves say."""
    if config.log.clicks is None:
        return True
    end = dt.datetime.combine(day + ONE_DAY, dt.time(), dt.timezone.utc) + config.log.attribution
    if config.log.complete_to is not None:
        return end <= dt.datetime.combine(config.log.complete_to + ONE_DAY, dt.time(), dt.timezone.utc)
    return events is not None and events.facts["log.clicks"].rows.get(end.date(), 0) > 0


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


def _passes(days: list[dt.date], rows: Mapping[dt.date, int], most: int) -> list[list[dt.date]]:
    """A run of days cut so that each part has about so many rows at most, but a day at least."""
    parts: list[list[dt.date]] = []
    size = 0
    for day in days:
        if not parts or size + rows.get(day, 0) > most:
            parts.append([])
            size = 0
        parts[-1].append(day)
        size += rows.get(day, 0)
    return parts


def runs(days: Iterable[dt.date]) -> list[list[dt.date]]:
    """Days as runs without gaps."""
    parts: list[list[dt.date]] = []
    for day in sorted(days):
        if parts and day - parts[-1][-1] == ONE_DAY:
            parts[-1].append(day)
        else:
            parts.append([day])
    return parts


def spans(days: Iterable[dt.date]) -> str:
    """Days in words."""
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs(days))
