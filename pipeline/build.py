"""Building samples day by day: what is missing or out of date, and nothing else."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import SparkSession

from pipeline.build_days import DayBuilder, is_final
from pipeline.config import DataConfig
from pipeline.contract import Contract, ContractError, Day
from pipeline.dataset.folder import DatasetFolder, Generation
from pipeline.dataset.lock import DatasetLock, this_process
from pipeline.dataset.start import Start, find_start, refuse_loss, refuse_overlap
from pipeline.events import EventLogs, Events, days_between
from pipeline.fingerprints import (
    SAMPLES_VERSION,
    code_fingerprint,
    setting_fingerprints,
    settings_fingerprint,
    vocabulary_fingerprint,
)
from pipeline.log_errors import log_errors
from pipeline.schedule import passes, runs, schedule, spans
from pipeline.storage import Storage
from pipeline.vocabulary_store import VocabularyStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildReport:
    """What a build did: the days it wrote and the days it left as they were."""

    built: tuple[dt.date, ...]
    kept: tuple[dt.date, ...]
    contract: Contract


@dataclass(frozen=True)
class PlannedDay:
    """What a build would do with a day, and why. ``rows`` is about how many samples it has.

    ``missing`` is a published day that is not asked for and would not be in the new samples: the build refuses, or drops it.
    """

    day: dt.date
    action: Literal["build", "keep", "missing"]
    reason: str
    rows: int


def build_samples(
    spark: SparkSession,
    config: DataConfig,
    first: dt.date,
    last: dt.date,
    *,
    extend_vocabularies: bool = False,
    drop_days: bool = False,
    verify: bool = False,
    wait: float = 0.0,
) -> BuildReport:
    """Build the days from ``first`` to ``last`` that are missing, or whose logs or configuration changed, or whose files are damaged.

    Days are published with the contract that names their files, so that a build that is stopped leaves the data set as it was, or
    with some more days, all whole. Where the configuration changed in what a sample is, a new generation is built beside the
    published one, and takes its place at once when it has all its days.

    Args:
        spark: the session.
        config: the data set.
        first: first day, in the configuration's ``day_time_zone``.
        last: last day.
        extend_vocabularies: give ids to values of training days that came after those that the vocabularies were made from.
        drop_days: publish a new generation although it lacks days that are published.
        verify: compare the published files' checksums, and not their sizes alone.
        wait: seconds to wait for another build of the same data set.

    Raises:
        LogError: a log cannot be used, or a day passes a threshold.
        ContractError: the folder holds a contract that this release cannot read, or something else, another build is at work in it,
            it cannot be written, or published days would be lost.
    """
    storage = Storage(spark)
    folder = DatasetFolder(storage, config.samples, config.keep_generations)
    with log_errors(config):
        refuse_overlap(spark, config)
        folder.refuse_foreign(config.name)
        try:
            with DatasetLock(storage, config.samples, wait) as lock:
                published = folder.recover()
                start = find_start(config, folder, published, verify=verify)
                days = days_between(first, last)
                if not drop_days:
                    days = sorted({*days, *start.damaged})
                    refuse_loss(start, config, days)
                return _Build(spark, config, folder, lock, start).run(days, extend_vocabularies=extend_vocabularies)
        except OSError as error:
            raise ContractError(
                f"{config.samples}: cannot be written: {error}; correct samples, or what may be done there"
            ) from error


def rollback(spark: SparkSession, config: DataConfig, generation: int | None, wait: float = 0.0) -> Contract:
    """Publish an earlier generation again: the one before the published one, or the one of a number.

    Raises:
        ContractError: there is no such generation, files of it are missing, or another build is at work.
    """
    storage = Storage(spark)
    folder = DatasetFolder(storage, config.samples, config.keep_generations)
    folder.refuse_foreign(config.name)
    with DatasetLock(storage, config.samples, wait) as lock:
        folder.recover()
        return folder.rollback(generation, lock)


def generations(spark: SparkSession, config: DataConfig) -> list[Generation]:
    """The generations of samples that are kept, the oldest first.

    Raises:
        ContractError: the folder holds something else.
    """
    folder = DatasetFolder(Storage(spark), config.samples, config.keep_generations)
    folder.refuse_foreign(config.name)
    return folder.generations()


def plan_build(spark: SparkSession, config: DataConfig, first: dt.date, last: dt.date) -> list[PlannedDay]:
    """What :func:`build_samples` would do; nothing is written.

    Raises:
        LogError: a log cannot be used.
        ContractError: the folder holds a contract that this release cannot read, or something else.
    """
    folder = DatasetFolder(Storage(spark), config.samples, config.keep_generations)
    with log_errors(config):
        refuse_overlap(spark, config)
        folder.refuse_foreign(config.name)
        start = find_start(config, folder, folder.contract())
        days = sorted({*days_between(first, last), *start.damaged})
        plan = schedule(spark, config, start.finished, _vocabularies(config, start.base), days)
        reasons = {day: _in_words(start, day, reason) for day, reason in plan.reasons.items()}
        rows = {day: plan.finished[day].rows for day in plan.kept}
        for span in runs(plan.stale):
            rows |= EventLogs(spark, config).read(span[0], span[-1]).rows
    planned = [PlannedDay(day, "build" if reason else "keep", reason, rows.get(day, 0)) for day, reason in reasons.items()]
    gone = {day.day: day.rows for day in start.published.days} if start.published is not None else {}
    planned += [PlannedDay(day, "missing", "published, and not asked for", gone[day]) for day in start.missing(days)]
    return sorted(planned, key=lambda planned: planned.day)


def _in_words(start: Start, day: dt.date, reason: str) -> str:
    """Why a day is built."""
    if day in start.damaged:
        return start.damaged[day]
    return f"new generation: {start.reason}" if reason and start.reason else reason


def _vocabularies(config: DataConfig, base: Contract | None) -> str:
    return base.vocabulary_fingerprint if base is not None else vocabulary_fingerprint(config)


class _Build:
    def __init__(
        self,
        spark: SparkSession,
        config: DataConfig,
        folder: DatasetFolder,
        lock: DatasetLock,
        start: Start,
    ) -> None:
        self._spark = spark
        self._config = config
        self._folder = folder
        self._lock = lock
        self._start = start
        self._publication = start.publication
        self._logs = EventLogs(spark, config)
        self._vocabularies = VocabularyStore(spark, config, folder)
        self._days = DayBuilder(spark, config, self._vocabularies)

    def run(self, days: list[dt.date], *, extend_vocabularies: bool) -> BuildReport:
        config, start = self._config, self._start
        if start.reason:
            log.info("a new generation of samples: %s", start.reason)
        for day, what in sorted(start.damaged.items()):
            log.warning("%s: %s; the day is built again", day, what)
        base = start.base
        if base is not None and extend_vocabularies:
            base = self._vocabularies.extended(base)
        plan = schedule(self._spark, config, start.finished, _vocabularies(config, base), days)
        if plan.kept:
            log.info("%d of %d days are finished and unchanged: %s", len(plan.kept), len(plan.reasons), spans(plan.kept))
        if plan.stale:
            log.info("building %d days: %s", len(plan.stale), spans(plan.stale))
        finished = dict(plan.finished)
        due = {day.day for day in start.published.days if day.day in {*finished, *days}} if start.published is not None else set()
        published = start.published
        for run in runs(plan.stale):
            events = self._logs.read(run[0], run[-1])
            for part in passes(run, events.rows, config.rows_per_pass):
                if part != run:
                    events = self._logs.read(part[0], part[-1])
                base = self._pass(base, events, part, plan.inputs, finished)
                if due <= set(finished):
                    published = self._publish(base, finished)
        contract = self._contract(base if base is not None else self._vocabularies.make(), finished)
        if published is None or not _same(contract, published):
            self._folder.commit(contract, {}, self._vocabularies.pending)
            published = self._publish(contract, finished)
        return BuildReport(plan.stale, plan.kept, published)

    def _pass(
        self,
        base: Contract | None,
        events: Events,
        days: list[dt.date],
        inputs: Mapping[dt.date, str],
        finished: dict[dt.date, Day],
    ) -> Contract:
        """Build some days and bring their files to their places; nothing is published. They are added to ``finished``."""
        staging = self._folder.staging(this_process())
        try:
            built = self._days.build(base, events, days, inputs, staging)
            finished |= built.days
            self._folder.commit(self._contract(built.base, finished), built.names, built.contents)
            self._vocabularies.pending.clear()
        finally:
            self._folder.remove_staging(staging)
        return built.base

    def _publish(self, base: Contract, finished: Mapping[dt.date, Day]) -> Contract:
        published = self._folder.publish(self._contract(base, finished), self._lock)
        self._publication = published.publication
        return published

    def _contract(self, base: Contract, finished: Mapping[dt.date, Day]) -> Contract:
        return base.model_copy(
            update={
                "version": 3,
                "name": self._config.name,
                "splits": self._config.splits,
                "config_fingerprint": settings_fingerprint(self._config),
                "settings": setting_fingerprints(self._config),
                "samples_version": SAMPLES_VERSION,
                "code_fingerprint": code_fingerprint(),
                "publication": self._publication,
                "days": tuple(
                    finished[day].model_copy(update={"final": finished[day].final or is_final(self._config, None, day)})
                    for day in sorted(finished)
                ),
            }
        )


def _same(contract: Contract, published: Contract) -> bool:
    """Whether two contracts say the same of samples: when and by which code they were published does not matter."""
    told = {"publication": contract.publication, "code_fingerprint": contract.code_fingerprint}
    return contract == published.model_copy(update=told)
