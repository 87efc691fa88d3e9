"""Building samples day by day: what is missing or out of date, and nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import SparkSession

from mian.contract import Contract, ContractError
from pipeline.build_days import SparkBuilder
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import vocabulary_fingerprint
from pipeline.dataset.folder import DatasetFolder, Generation
from pipeline.dataset.lock import DatasetLock
from pipeline.dataset.run import BuildReport, run_build
from pipeline.dataset.schedule import runs, schedule
from pipeline.dataset.start import Start, find_start, refuse_loss, refuse_overlap
from pipeline.days import days_between
from pipeline.io.storage import Storage
from pipeline.logs.errors import log_errors, refuse_unreachable
from pipeline.logs.events import EventLogs

__all__ = ["BuildReport", "PlannedDay", "build_samples", "generations", "plan_build", "rollback"]


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

    Days are published together with the contract that names their files. So a build that is stopped leaves the data set as it was, or
    with some more complete days. If the configuration changed what a sample is, a new generation is built beside the published one
    and replaces it in one step, when all days of the new one are built.

    Args:
        spark: the session.
        config: the data set.
        first: first day, in the configuration's ``day_time_zone``.
        last: last day.
        extend_vocabularies: give ids to new values of those training days that came after the days that the vocabularies were made
            from.
        drop_days: publish a new generation even if it lacks days that are published, and build a day anew even if logs that its
            published samples were made from are gone.
        verify: compare the published files' checksums, and not their sizes alone.
        wait: seconds to wait for another build of the same data set.

    Raises:
        LogError: a log cannot be used, or a day passes a threshold.
        ContractError: the folder holds a contract that this release cannot read, or something that is not a data set; another build
            works in the folder; the folder cannot be written; or published days would be lost.
    """
    refuse_unreachable(spark, config)
    storage = Storage(spark)
    folder = DatasetFolder(storage, config.samples, config.keep_generations)
    with log_errors(config):
        refuse_overlap(spark, config)
        with _locked(storage, folder, config, wait) as lock:
            published = folder.recover()
            start = find_start(config, folder, published, verify=verify)
            days = days_between(first, last)
            if not drop_days:
                days = sorted({*days, *start.damaged})
                refuse_loss(start, config, days)
            builder = SparkBuilder(spark, config, folder, published)
            return run_build(
                config, folder, lock, start, builder, days, extend_vocabularies=extend_vocabularies, drop_days=drop_days
            )


@contextmanager
def _locked(storage: Storage, folder: DatasetFolder, config: DataConfig, wait: float) -> Iterator[DatasetLock]:
    """The right to write into a folder that holds this data set, or nothing yet.

    Raises:
        ContractError: it holds something else, cannot be written, or another build is at work in it.
    """
    folder.refuse_foreign(config.name)
    try:
        published = folder.contract()
        token = published.publication.fencing_token if published is not None else 0
        with DatasetLock(storage, config.samples, wait, after=token) as lock:
            yield lock
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
    with log_errors(config), _locked(storage, folder, config, wait) as lock:
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
    refuse_unreachable(spark, config)
    folder = DatasetFolder(Storage(spark), config.samples, config.keep_generations)
    with log_errors(config):
        refuse_overlap(spark, config)
        folder.refuse_foreign(config.name)
        start = find_start(config, folder, folder.contract())
        days = sorted({*days_between(first, last), *start.damaged})
        vocabularies = start.base.vocabulary_fingerprint if start.base is not None else vocabulary_fingerprint(config)
        published = start.published.days if start.published is not None else ()
        plan = schedule(spark, config, start.finished, vocabularies, days, published)
        lost = {day: what for day, what in plan.gone.items() if day in plan.finished}
        reasons = {day: "" if day in lost else _in_words(start, day, reason) for day, reason in plan.reasons.items()}
        rows = {day: plan.finished[day].rows for day in {*plan.kept, *lost}}
        for span in runs(day for day in plan.stale if day not in lost):
            rows |= EventLogs(spark, config).read(span[0], span[-1]).rows
    planned = [
        PlannedDay(day, "build", reason, rows.get(day, 0))
        if reason
        else PlannedDay(day, "keep", f"gone: {lost[day]}" if day in lost else "", rows.get(day, 0))
        for day, reason in reasons.items()
    ]
    gone = {day.day: day.rows for day in start.published.days} if start.published is not None else {}
    planned += [PlannedDay(day, "missing", "published, and not asked for", gone[day]) for day in start.missing(days)]
    return sorted(planned, key=lambda planned: planned.day)


def _in_words(start: Start, day: dt.date, reason: str) -> str:
    """Why a day is built."""
    if day in start.damaged:
        return start.damaged[day]
    return f"new generation: {start.reason}" if reason and start.reason else reason
