"""The course of a build: which days are made, in what order, and when they are published. How a day is made is told by a builder."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mian.contract import Contract, ContractError, Day
from mian.contract.document import fingerprint
from mian.fingerprint import package_fingerprint
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import (
    SAMPLES_VERSION,
    setting_fingerprints,
    settings_fingerprint,
    vocabulary_fingerprint,
)
from pipeline.dataset.folder import DatasetFolder
from pipeline.dataset.lock import DatasetLock, this_process
from pipeline.dataset.schedule import Schedule, runs, spans
from pipeline.dataset.start import Start

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildReport:
    """What a build did: the days it wrote and the days it left as they were."""

    built: tuple[dt.date, ...]
    kept: tuple[dt.date, ...]
    contract: Contract


@dataclass(frozen=True)
class BuiltDays:
    """Some days, written and not in their places.

    ``base`` has the vocabularies that they were made with. ``names`` are those that staged files are to get, by their paths;
    ``contents`` small files that are not written yet, by their names.
    """

    base: Contract
    days: Mapping[dt.date, Day]
    names: Mapping[str, str]
    contents: Mapping[str, bytes]


class Builder(Protocol):
    """Makes days and vocabularies for :func:`run_build`, which decides in which order."""

    def schedule(self, finished: Mapping[dt.date, Day], vocabularies: str, days: Iterable[dt.date]) -> Schedule:
        """Which days are missing or out of date; see :func:`pipeline.dataset.schedule.schedule`."""

    def extended(self, base: Contract) -> BuiltDays:
        """The vocabularies of a contract, with values of later training days; no days."""

    def vocabularies(self) -> BuiltDays:
        """Vocabularies alone; no days."""

    def passes(self, days: list[dt.date]) -> Iterable[list[dt.date]]:
        """Days without gaps, cut into what is built together."""

    def build(
        self,
        base: Contract | None,
        days: list[dt.date],
        inputs: Mapping[dt.date, str],
        contents: Mapping[str, bytes],
        staging: str,
    ) -> BuiltDays:
        """Build some days without gaps, and the vocabularies where there are none yet.

        Args:
            base: has the vocabularies; None where they are to be made.
            days: The days to build, in order.
            inputs: the fingerprint of each day's rows.
            contents: files that ``base`` names and that are not written yet; they are part of the result.
            staging: where files are written.
        """

    def is_final(self, day: dt.date) -> bool:
        """Whether the configuration says that the labels of a day cannot change any more."""


def run_build(
    config: DataConfig,
    folder: DatasetFolder,
    lock: DatasetLock,
    start: Start,
    builder: Builder,
    days: Iterable[dt.date],
    *,
    extend_vocabularies: bool = False,
    drop_days: bool = False,
) -> BuildReport:
    """Build the days that are missing or out of date, and publish them as soon as no published day is lost by it.

    Args:
        config: the data set.
        folder: where it lies.
        lock: the right to write there.
        start: from where to go on.
        builder: makes days.
        days: those asked for.
        extend_vocabularies: give ids to values of later training days first.
        drop_days: build days anew although logs that their published samples were made from are gone.

    Raises:
        ContractError: such days have to be built anew, and may not.
    """
    run = _Run(config, folder, lock, start, builder)
    return run.run(list(days), extend_vocabularies=extend_vocabularies, drop_days=drop_days)


class _Run:
    def __init__(self, config: DataConfig, folder: DatasetFolder, lock: DatasetLock, start: Start, builder: Builder) -> None:
        self._config = config
        self._folder = folder
        self._lock = lock
        self._start = start
        self._builder = builder
        self._published = start.published
        self._publication = start.publication
        self._finished: dict[dt.date, Day] = {}

    def run(self, days: list[dt.date], *, extend_vocabularies: bool, drop_days: bool) -> BuildReport:
        start, published = self._start, self._start.published
        if start.reason:
            log.info("a new generation of samples: %s", start.reason)
        for day, what in sorted(start.damaged.items()):
            log.warning("%s: %s%s", day, what, "; the day is built again" if day in days else "; the day is left out")
        base, contents = start.base, dict[str, bytes]()
        if base is not None and extend_vocabularies:
            extended = self._builder.extended(base)
            base, contents = extended.base, dict(extended.contents)
        vocabularies = base.vocabulary_fingerprint if base is not None else vocabulary_fingerprint(self._config)
        plan = self._builder.schedule(start.finished, vocabularies, days)
        if plan.gone and not drop_days:
            plan = self._without_gone(plan)
        if plan.kept:
            log.info("%d of %d days are finished and unchanged: %s", len(plan.kept), len(plan.reasons), spans(plan.kept))
        if plan.stale:
            log.info("building %d days: %s", len(plan.stale), spans(plan.stale))
        self._finished = dict(plan.finished)
        # until these are there, a publication would lose a day
        due = {day.day for day in published.days} & {*self._finished, *days} if published is not None else set()
        for part in (part for run in runs(plan.stale) for part in self._builder.passes(run)):
            base, contents = self._pass(base, part, plan.inputs, contents), {}
            if due <= set(self._finished):
                self._publish(base)
        if base is None:
            made = self._builder.vocabularies()
            base, contents = made.base, dict(made.contents)
        contract = self._contract(base)
        if self._published is None or not _same(contract, self._published):
            self._folder.commit(contract, {}, contents, self._lock)
            self._publish(base)
        # a stopped build may have left a draft whose days are all there
        self._folder.discard_draft(self._publication.generation, self._lock)
        assert self._published is not None
        return BuildReport(plan.stale, plan.kept, self._published)

    def _without_gone(self, plan: Schedule) -> Schedule:
        """The plan with the days kept whose logs are gone.

        Raises:
            ContractError: they cannot be kept: a new generation has none of the published days, and damaged ones are not whole.
        """
        reasons = dict(plan.reasons)
        for day, lost in sorted(plan.gone.items()):
            if day not in plan.finished:
                raise ContractError(
                    f"{self._config.samples}: {day} has to be built anew ({self._start.reason or self._start.damaged.get(day, '')}), "
                    f"and logs that its published samples were made from are gone: {lost}. Bring them back, take the change back, or "
                    "build without them with --drop-days. Nothing was changed"
                )
            log.warning("%s: kept as it is published, for logs that it was made from are gone: %s", day, lost)
            reasons[day] = ""
        return dataclasses.replace(plan, reasons=reasons)

    def _pass(
        self, base: Contract | None, days: list[dt.date], inputs: Mapping[dt.date, str], contents: Mapping[str, bytes]
    ) -> Contract:
        """Build some days and bring their files to their places; nothing is published."""
        staging = self._folder.staging(this_process())
        try:
            built = self._builder.build(base, days, inputs, contents, staging)
            self._finished |= built.days
            self._folder.commit(self._contract(built.base), built.names, built.contents, self._lock)
        finally:
            self._folder.remove_staging(staging)
        return built.base

    def _publish(self, base: Contract) -> None:
        self._published = self._folder.publish(self._contract(base), self._lock)
        self._publication = self._published.publication

    def _contract(self, base: Contract) -> Contract:
        days = (self._finished[day] for day in sorted(self._finished))
        return base.model_copy(
            update={
                "version": 3,
                "name": self._config.name,
                "splits": self._config.splits,
                "config_fingerprint": settings_fingerprint(self._config),
                "settings": setting_fingerprints(self._config),
                "samples_version": SAMPLES_VERSION,
                "code_fingerprint": fingerprint(
                    {package: package_fingerprint(package) for package in ("pipeline", "mian.contract")}
                ),
                "publication": self._publication,
                "days": tuple(day.model_copy(update={"final": day.final or self._builder.is_final(day.day)}) for day in days),
            }
        )


def _same(contract: Contract, published: Contract) -> bool:
    """Whether two contracts say the same of samples: when and by which code they were published does not matter."""
    told = {"publication": contract.publication, "code_fingerprint": contract.code_fingerprint}
    return contract == published.model_copy(update=told)
