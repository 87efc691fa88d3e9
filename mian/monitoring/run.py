"""From a model and the days since its training to a report."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mian.contract import Contract, Day, read_contract
from mian.contract.document import LABEL_COLUMN, USER_COLUMN
from mian.contract.lineage import Lineage
from mian.evaluation.chosen_days import CHOSEN, with_days
from mian.evaluation.offline import known_sizes, score_split
from mian.evaluation.scoring import Scores
from mian.evaluation.split_columns import impression_ids, read_column
from mian.metrics import MetricError
from mian.monitoring.compare import Comparer, missing_day
from mian.monitoring.day_facts import AUC, CALIBRATION, LOGLOSS, DayFacts, DayReader
from mian.monitoring.days import FEWEST, ChosenDays, MonitoringError, Span, choose_days
from mian.monitoring.report import MonitoringReport
from mian.monitoring.settings import MonitoringConfig
from mian.scoring.servable_files import read_description
from mian.serving import Servable, load_servable
from mian.tracking.model_source import is_registered
from mian.tracking.registry import fetch_model


@dataclass(frozen=True)
class PublishedScores:
    """Scores that were published when they were made.

    Attributes:
        folder: Where they are.
        versions: By day that has scores, the version of the model that made them.
        read: Reads the scores of a day: columns ``impression_id`` (text) and ``score`` (float).
    """

    folder: str
    versions: Mapping[dt.date, str]
    read: Callable[[dt.date], pa.Table]


def monitor(
    model: str, settings: MonitoringConfig, asked: Span, reference: Span | None = None, scores: PublishedScores | None = None
) -> MonitoringReport:
    """Compare days with the reference days.

    Args:
        model: A version of the registry such as ``models:/mian@champion``, or a folder that a training kept.
        settings: Where the samples are, and how sure an alarm is.
        asked: The days to look at.
        reference: The days to compare with, where they are named.
        scores: Scores that were published; None has the model score the samples.

    Raises:
        ContractError, StreamError: The samples cannot be read, or the model was not trained on samples like these.
        MonitoringError: There is no day to look at, or none to compare with; or scores do not fit the samples.
        MlflowException, OSError, ServableError, TrackingError: The model cannot be had.
    """
    contract = read_contract(settings.samples)
    with tempfile.TemporaryDirectory() as copy:
        fetched = fetch_model(model, copy)
        servable = load_servable(fetched.folder)
    lineage = servable.lineage
    if lineage is None or lineage.last_seen is None:
        raise MonitoringError(f"{model} does not say which days it was trained on; train it again with this release")
    if scores is None:
        days = choose_days(contract, lineage, settings.reference_days, asked, reference)
        source: OwnScores | _ReadScores = OwnScores(servable, fetched.version, contract, settings)
    else:
        known_sizes(servable, contract, settings.samples)
        scored_days = tuple(day for day in contract.days if day.day in scores.versions)
        days = choose_days(contract.model_copy(update={"days": scored_days}), None, settings.reference_days, asked, reference)
        _refuse_seen(days, scores, {fetched.version: lineage})
        source = _ReadScores(scores, contract, settings.samples)
    return _report(days, source, servable, contract, settings, fetched.version)


def _report(
    days: ChosenDays,
    source: OwnScores | _ReadScores,
    servable: Servable,
    contract: Contract,
    settings: MonitoringConfig,
    version: str,
) -> MonitoringReport:
    reader = DayReader(contract, settings.samples, servable.contract, settings.calendar_fields)

    def facts(day: Day) -> DayFacts:
        if day.rows == 0:
            return DayFacts(day.day)
        try:
            return reader.read(day, *source.scores(day))
        except MetricError as error:
            raise MonitoringError(f"the scores of {day.day} by {source.version(day.day)}: {error}") from error

    comparer = Comparer([facts(day) for day in days.reference], reader.fields, settings.false_alarm_rate)
    _check_reference(comparer, source.folder)
    reports = [comparer.report(each, source.version(each.day)) for each in comparer.reference]
    reports += [comparer.report(facts(day), source.version(day.day)) for day in days.looked_at]
    reports += [missing_day(day, "samples" if source.folder is None else "samples or no scores") for day in days.missing]
    reports += [missing_day(day, "final labels") for day in days.not_final]
    return MonitoringReport(
        model=version,
        scores=source.folder,
        levels={"model": comparer.model_level, "field": comparer.field_level},
        left_out=tuple(field.column for field in contract.fields if field not in reader.fields),
        days=tuple(sorted(reports, key=lambda report: report.day)),
        settings=settings,
    )


def _check_reference(comparer: Comparer, scores: str | None) -> None:
    """See that the reference days tell what the model's metrics usually are; else no day could raise an alarm about them.

    Raises:
        MonitoringError: They do not.
    """
    others = "name others by --reference-from and --reference-to"
    for each in comparer.reference:
        if not each.rows:
            raise MonitoringError(f"a reference day has no samples, {each.day}; {others}")
        if LOGLOSS not in each.measures:
            raise MonitoringError(
                f"{scores}: no impression of {each.day} in the samples has a score, so that they are of another data set or of other days; "
                f"name the scores of these samples, or {others}"
            )
    for name in (LOGLOSS, AUC, CALIBRATION):
        if comparer.known_days(name) < FEWEST:
            raise MonitoringError(
                f"fewer than {FEWEST} reference days have samples with and without a click, of several users, so that {name} cannot be "
                f"compared; look whether their click log is whole, or {others}"
            )


@dataclass(frozen=True)
class OwnScores:
    """The model scores the samples.

    Attributes:
        servable: The model.
        own_version: Its version.
        contract: Of the samples.
        settings: How they are scored.
        folder: There is none.
    """

    servable: Servable
    own_version: str
    contract: Contract
    settings: MonitoringConfig
    folder: None = None

    def version(self, day: dt.date) -> str:
        """The model's version, on whatever day."""
        return self.own_version

    def scores(self, day: Day) -> tuple[Scores, None]:
        """Labels, probabilities and users of a day; all rows have a score.

        Raises:
            ContractError, StreamError: See :func:`mian.evaluation.offline.score_split`.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(self.settings.threads)
        try:
            chosen = with_days(self.contract, [day])
            return score_split(self.servable, chosen, self.settings.samples, CHOSEN, self.settings.position), None
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class _ReadScores:
    """Scores that were published, and the labels of the samples."""

    published: PublishedScores
    contract: Contract
    samples: str

    @property
    def folder(self) -> str:
        return self.published.folder

    def version(self, day: dt.date) -> str:
        return self.published.versions[day]

    def scores(self, day: Day) -> tuple[Scores, npt.NDArray[np.bool_]]:
        chosen = with_days(self.contract, [day])
        chosen.check_unthinned(CHOSEN)
        labels, users = (
            read_column(chosen, self.samples, CHOSEN, name, kind).to_numpy()
            for name, kind in ((LABEL_COLUMN, pa.int32()), (USER_COLUMN, pa.int64()))
        )
        table = self.published.read(day.day)
        ids = table.column("impression_id").combine_chunks()
        if len(pc.unique(ids)) != len(ids):
            raise MonitoringError(f"{self.folder}: {day.day} has two scores of one impression; give impressions ids of their own")
        places = pc.index_in(pa.array(impression_ids(chosen, self.samples, CHOSEN)), value_set=ids)
        has_score = ~places.is_null().to_numpy(zero_copy_only=False)
        probabilities = np.zeros(len(labels), np.float32)
        found = table.column("score").to_numpy()
        probabilities[has_score] = found[places.drop_null().to_numpy()]
        return Scores(labels, probabilities, users), has_score


def _refuse_seen(days: ChosenDays, scores: PublishedScores, known: dict[str, Lineage]) -> None:
    """Refuse days that were scored by a version that has seen them."""
    for day in (*days.reference, *days.looked_at):
        version = scores.versions[day.day]
        if version not in known:
            if not is_registered(f"models:/{version}"):
                raise MonitoringError(
                    f"{day.day} was scored by {version}, which is no version of a registry, so that its days are not known; "
                    "name the model's folder by --model, or other days by --from and --reference-from"
                )
            with tempfile.TemporaryDirectory() as copy:
                lineage = read_description(fetch_model(f"models:/{version}", copy).folder).lineage
            if lineage is None or lineage.last_seen is None:
                raise MonitoringError(
                    f"{version}, which scored {day.day}, does not say which days it was trained on; name later days"
                )
            known[version] = lineage
        last = known[version].last_seen
        if last is not None and day.day <= last:
            raise MonitoringError(
                f"{day.day} was scored by {version}, which was trained on or chosen by days up to {last}: its metrics would be too good; "
                "name other days by --from and --reference-from"
            )
