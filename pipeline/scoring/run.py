"""Scoring candidates day by day: what is not finished, and nothing else."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from mian.contract import ContractError, SampleFile, Split, read_contract
from mian.contract.document import fingerprint
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import SAMPLES_VERSION, setting_fingerprints
from pipeline.dataset.inputs import find_inputs
from pipeline.dataset.lock import DatasetLock, this_process
from pipeline.dataset.quality import in_words
from pipeline.dataset.sample_writer import WrittenDay, stage_files
from pipeline.dataset.schedule import passes, runs, spans
from pipeline.dataset.start import refuse_overlap
from pipeline.days import microseconds
from pipeline.io.storage import Storage
from pipeline.join.matches import merged
from pipeline.join.outputs import DUPLICATE
from pipeline.join.unmatched import refuse_unmatched
from pipeline.logs.candidates import CandidateLogs, candidate_days, candidates_config, good_rows
from pipeline.logs.errors import LogError, log_errors, refuse_unreachable
from pipeline.logs.events import Events
from pipeline.scoring.folder import ScoresFolder
from pipeline.scoring.manifest import Manifest, ScoredBy, ScoredDay, run_identity
from pipeline.scoring.moments import SMALLEST_GROUP
from pipeline.scoring.scorer import ScoringModel
from pipeline.scoring.settings import refuse_other_settings
from pipeline.scoring.stage import file_tasks, give_to_workers, packed_candidates
from pipeline.scoring.worker import ScorePlan, score_files

log = logging.getLogger(__name__)

#: Parts of the configuration that decide how samples are written, and not which scores they have.
_OF_SAMPLES = ("vocabularies", "examples_per_day", "seed")


@dataclass(frozen=True)
class ScoringRequest:
    """What is to be scored, and how.

    ``impressions`` are the candidates, ``output`` is the folder of the scores. Days before ``first`` and after ``last`` are left out.
    ``scored_at`` is what the column of that name says; the moment at which the run began where it is not given. ``overwrite``: finished
    days that another model, configuration or input made are scored anew. ``wait``: seconds to wait for another run in the folder.
    """

    impressions: str
    output: str
    first: dt.date | None = None
    last: dt.date | None = None
    scored_at: dt.datetime | None = None
    overwrite: bool = False
    wait: float = 0.0
    stand_ins: Mapping[str, int | float] = field(default_factory=dict)
    """By column of the context, what the model reads in the place of the candidates' values: an id, or a transformed number. The
    candidates need no such column."""
    smallest_group: int = SMALLEST_GROUP
    """See :func:`pipeline.scoring.moments.score_moments`."""


@dataclass(frozen=True)
class ScoringReport:
    """What a run did: the days that it scored, those that it left as they were, and all that the folder holds."""

    scored: tuple[dt.date, ...]
    kept: tuple[dt.date, ...]
    manifest: Manifest


def score_days(spark: SparkSession, config: DataConfig, model: ScoringModel, request: ScoringRequest) -> ScoringReport:
    """Score candidates. Days are published one by one, each whole.

    Histories, profiles and attributes are joined as for samples, and encoded with the model's vocabularies and transforms.

    Args:
        spark: the session.
        config: the data set that the model was trained on; its ``log.impressions`` says which columns candidates have.
        model: the model.
        request: what is to be scored.

    Raises:
        LogError: a log cannot be used, or a day passes a threshold.
        ContractError: the configuration is not that of the model's samples, the folder holds something else, a finished day was made
            by something else, or another run is at work in the folder.
    """
    refuse_other_settings(config, read_contract(model.folder), model.version)
    candidates = candidates_config(config, request.impressions, request.stand_ins)
    refuse_unreachable(spark, candidates.model_copy(update={"samples": request.output}))
    with log_errors(candidates):
        refuse_overlap(spark, candidates.model_copy(update={"samples": request.output}))
        days = candidate_days(spark, candidates, request.first, request.last)
        # rows that no day can be said of belong to the first one
        candidates = candidates.model_copy(update={"splits": {"train": Split(first=days[0], last=days[-1])}})
        storage = Storage(spark)
        folder = ScoresFolder(storage, request.output, config.name)
        folder.refuse_foreign()
        try:
            with DatasetLock(storage, request.output, request.wait, activity="scores into this folder") as lock:
                return _Run(spark, config, candidates, model, request, folder, lock).run(days)
        except OSError as error:
            raise ContractError(
                f"{request.output}: cannot be written: {error}; correct --output, or what may be done there"
            ) from error


class _Run:
    def __init__(
        self,
        spark: SparkSession,
        config: DataConfig,
        candidates: DataConfig,
        model: ScoringModel,
        request: ScoringRequest,
        folder: ScoresFolder,
        lock: DatasetLock,
    ) -> None:
        self._spark = spark
        self._config = config
        self._candidates = candidates
        self._model = model
        self._request = request
        self._folder = folder
        self._lock = lock

    def run(self, days: list[dt.date]) -> ScoringReport:
        self._folder.recover()
        scored_by = self._scored_by(days)
        stale = self._stale(scored_by)
        kept = tuple(day for day in days if day not in stale)
        run = run_identity(scored_by)
        if kept:
            log.info("%d of %d days are finished and unchanged: %s", len(kept), len(days), spans(kept))
        if stale:
            moment = self._folder.begin(run, self._request.scored_at)
            log.info("scoring %d days: %s", len(stale), spans(stale))
            self._score(stale, scored_by, moment, days[0])
        self._folder.end(run)
        return ScoringReport(tuple(stale), kept, self._folder.manifest())

    def _scored_by(self, days: list[dt.date]) -> dict[dt.date, ScoredBy]:
        parts = {part: value for part, value in setting_fingerprints(self._candidates).items() if part not in _OF_SAMPLES}
        settings = fingerprint(parts)
        inputs = find_inputs(self._spark, self._candidates, days).fingerprints
        return {
            day: ScoredBy(
                model_version=self._model.version,
                model=self._model.digest,
                settings=settings,
                inputs=inputs[day],
                smallest_group=self._request.smallest_group,
                samples_version=SAMPLES_VERSION,
            )
            for day in days
        }

    def _stale(self, scored_by: Mapping[dt.date, ScoredBy]) -> list[dt.date]:
        """The days that are to be scored.

        Raises:
            ContractError: a finished one was made by something else.
        """
        manifest, stale = self._folder.manifest(), []
        for day, by in scored_by.items():
            finished = manifest.day(day)
            difference = by.difference(finished.scored_by) if finished is not None else ""
            if difference and not self._request.overwrite:
                raise ContractError(
                    f"{self._folder.folder}: {day} is finished and was scored by {difference}; say --overwrite to score such days anew, "
                    "or name another --output. Nothing was changed"
                )
            damage = self._folder.damaged(finished) if finished is not None else ""
            if damage:
                log.warning("%s: %s; the day is scored again", day, damage)
            if finished is None or difference or damage:
                stale.append(day)
        return stale

    def _score(self, days: list[dt.date], scored_by: Mapping[dt.date, ScoredBy], moment: dt.datetime, first: dt.date) -> None:
        plan = ScorePlan(
            archive=give_to_workers(self._spark, self._model),
            factory=self._model.factory,
            model_version=self._model.version,
            scored_at=microseconds(moment - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)),
            smallest_group=self._request.smallest_group,
            stand_ins=self._request.stand_ins,
        )
        logs = CandidateLogs(self._spark, self._config, self._candidates, first)
        for run in runs(days):
            events = logs.read(run[0], run[-1])
            for part in passes(run, events.rows, self._config.rows_per_pass):
                if part != run:
                    events = logs.read(part[0], part[-1])
                self._pass(events, part, plan, scored_by, moment)

    def _pass(
        self, events: Events, days: list[dt.date], plan: ScorePlan, scored_by: Mapping[dt.date, ScoredBy], moment: dt.datetime
    ) -> None:
        staging = self._folder.staging(this_process())
        try:
            blobs = packed_candidates(self._spark, self._candidates, events, days)
            tasks = file_tasks(self._candidates, events, days, self._spark.sparkContext.defaultParallelism)
            scored = score_files(blobs, plan, tasks)
            staged = stage_files(self._spark, scored, f"{staging}/written")
            written = {day: staged.days.get(day, WrittenDay()) for day in days}
            matched = {
                day: merged(part["matched"] for part in found.counts if "matched" in part) for day, found in written.items()
            }
            refuse_unmatched(self._spark, self._candidates, matched)
            for day, found in written.items():
                self._refuse(events, day, found)
            for day, found in written.items():
                names = {path: _hidden(name) for path, name in staged.names.items() if name.startswith(f"day={day}/")}
                self._folder.publish(_scored_day(day, found, scored_by[day], moment), names, staging, self._lock)
        finally:
            self._folder.remove_staging(staging)

    def _refuse(self, events: Events, day: dt.date, written: WrittenDay) -> None:
        """Stop before a day is published that passes a threshold, or lacks a row.

        Raises:
            LogError: it does.
        """
        facts, limit = events.facts["log.impressions"], self._config.quality.max_duplicates
        shown, duplicates = facts.rows.get(day, 0), written.rejected.get(DUPLICATE, 0)
        if duplicates > limit * shown:
            raise LogError(
                f"{day}: {duplicates} of {shown} of the candidates are duplicates of others ({in_words(written.rejected)}); "
                f"quality.max_duplicates allows {limit:g} of them. Give each candidate of a user and day an impression_id of its own"
            )
        rows = sum(file.rows for file in written.files)
        broken = {rule for rules in facts.broken.values() for rule in rules}
        left_out = sum(n for why, n in written.rejected.items() if _rule(why) is not None and _rule(why) not in broken)
        if rows + left_out != good_rows(facts, day):
            raise LogError(
                f"{day}: {good_rows(facts, day)} candidates keep the rules, and {rows} were scored and {left_out} left out; did the log "
                "change while it was read? Score the day again"
            )


def _rule(reason: str) -> str | None:
    """The rule that a candidate broke, of what its quarantine says; None of a row of another log."""
    log_name, _, rule = reason.partition(": ")
    return rule if log_name == "log.impressions" else None


def _hidden(name: str) -> str:
    """The name of a file in the folder: readers of scores pass over the quarantine."""
    return name.replace("/quarantine-", "/_quarantine-")


def _scored_day(day: dt.date, written: WrittenDay, scored_by: ScoredBy, moment: dt.datetime) -> ScoredDay:
    quarantine: SampleFile | None = written.quarantine
    if quarantine is not None:
        quarantine = quarantine.model_copy(update={"path": _hidden(quarantine.path)})
    return ScoredDay(
        day=day,
        rows=sum(file.rows for file in written.files),
        scored_by=scored_by,
        scored_at=moment,
        files=tuple(written.files),
        quarantine=quarantine,
        quarantined=dict(sorted(written.rejected.items())),
    )
