"""Monitoring of a trained model: quiet days are quiet, and each thing that breaks is named before what it causes."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mian.contract import UNKNOWN_ID, Contract, ContractError
from mian.contract.lineage import lineage_of
from mian.evaluation.chosen_days import CHOSEN, with_days
from mian.evaluation.offline import score_split
from mian.evaluation.split_columns import impression_ids
from mian.monitoring.days import MonitoringError, Span
from mian.monitoring.page import monitoring_page
from mian.monitoring.report import DayReport, MonitoringReport
from mian.monitoring.run import PublishedScores, monitor
from mian.monitoring.settings import MonitoringConfig
from mian.serving import load_servable, read_vocabularies, save_servable
from mian.stream import StreamError
from tests.factories import FIRST_DAY, LENGTH, SMALL_MODEL, make_model, write_contract, write_file, write_samples
from tests.mian.conftest import Samples

#: Days that no model has seen, as many rows each: seven of reference and four to look at.
UNSEEN = ((1500,),) * 11
FIRST_UNSEEN = 5
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contract, Path]:
    """Samples, their contract, and a model of the training days."""
    folder = tmp_path_factory.mktemp("monitored")
    contract = write_samples(folder / "samples", test=UNSEEN)
    trainer = Samples(folder / "samples", contract).trainer(optimizer={"learning_rate": 1e-2}, epochs=6, test_split=None)
    trainer.run()
    lineage = lineage_of(contract, str(folder / "samples"), "train", "validation", "code")
    files = read_vocabularies(contract, str(folder / "samples"))
    save_servable(folder / "model", trainer.model, "mian", dict(SMALL_MODEL), contract, files, lineage=lineage)
    return folder / "samples", contract, folder / "model"


def date(place: int) -> dt.date:
    """A day that no model has seen, counted from 0."""
    return FIRST_DAY + dt.timedelta(days=FIRST_UNSEEN + place)


def changed(world: tuple[Path, Contract, Path], folder: Path, **changes: Change) -> str:
    """A copy of the samples in which days, called ``day9``, are changed."""
    samples, contract, _ = world
    days = []
    for day in contract.days:
        place = (day.day - date(0)).days
        change = changes.get(f"day{place}", lambda table: table)
        (file,) = day.files if place >= 0 else (None,)
        if file is not None:
            table = change(pq.read_table(samples / file.path, partitioning=None))
            files = (write_file(folder, file.path, table),) if table.num_rows else ()
            day = day.model_copy(update={"files": files, "rows": table.num_rows})
            days.append(day)
    for vocabulary in contract.vocabularies:
        assert vocabulary.path is not None
        write_file(folder, vocabulary.path, (samples / vocabulary.path).read_bytes())
    write_contract(folder, contract.model_copy(update={"days": tuple(days)}))
    return str(folder)


def look(world: tuple[Path, Contract, Path], samples: str, *arguments: Any, **values: Any) -> MonitoringReport:
    return monitor(str(world[2]), MonitoringConfig(samples=samples, **values), *(arguments or (Span(),)))


def on(report: MonitoringReport, place: int) -> DayReport:
    return next(day for day in report.days if day.day == date(place))


def replaced(name: str, make: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        column = table[name]
        values = make(column.to_numpy(), np.random.default_rng(0))
        return table.set_column(table.column_names.index(name), name, pa.array(values, column.type))

    return change


def without_histories(table: pa.Table) -> pa.Table:
    """As where the join of behaviors found none."""
    for column in table.column_names:
        if column.startswith("behavior"):
            empty = [0] * table.num_rows if column == "behavior_length" else [[0] * LENGTH] * table.num_rows
            place = table.column_names.index(column)
            table = table.set_column(place, column, pa.array(empty, table.schema.field(column).type))
    return table


def some(share: float, value: Any) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda values, rng: np.where(rng.random(len(values)) < share, value, values)


def test_quiet_days_raise_no_alarm(world: tuple[Path, Contract, Path]) -> None:
    report = look(world, str(world[0]))
    assert [day.day for day in report.reference] == [date(place) for place in range(7)]
    assert [day.day for day in report.looked_at] == [date(place) for place in range(7, 11)]
    assert not report.alarms, report.text()
    assert "No alarm" in report.headline()
    assert "all 4 days" in report.headline()
    kinds = {measured.kind for measured in report.looked_at[0].measures}
    assert kinds == {"rows", "click rate", "logloss", "AUC", "calibration", "unknown", "values", "scores"}
    states = {measured.state for day in report.looked_at for measured in day.measures}
    assert states == {"quiet"}, "each measure can tell"
    assert not any(measured.highest is not None for measured in report.reference[0].measures)
    page = monitoring_page(report)
    assert "Nothing is left to do" in page
    assert "too little to tell" not in page
    unclear = [
        day.model_copy(update={"measures": tuple(each.model_copy(update={"state": "cannot tell"}) for each in day.measures)})
        for day in report.looked_at
    ]
    assert "too little to tell" in monitoring_page(report.model_copy(update={"days": (*report.reference, *unclear)}))


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (replaced("candidate_item_id", some(0.3, UNKNOWN_ID)), "unknown candidate_item_id"),
        (replaced("user_age", some(1.0, UNKNOWN_ID)), "unknown user_age"),
        (replaced("context_hour", some(1.0, 5)), "values of context_hour"),
        (without_histories, "values of behavior_length"),
        (replaced("context_slot", some(0.9, 9.0)), "values of context_slot"),
        (replaced("label", some(0.5, 0)), "click rate"),
        (lambda table: table.slice(0, 200), "rows"),
    ],
)
def test_what_breaks_on_a_day_is_named_first_and_other_days_stay_quiet(
    world: tuple[Path, Contract, Path], tmp_path: Path, change: Change, first: str
) -> None:
    report = look(world, changed(world, tmp_path, day9=change))
    assert [day.day for day in report.alarms] == [date(9)], report.text()
    assert report.alarms[0].alarms[0].name == first, [measured.name for measured in report.alarms[0].alarms]
    assert f"Alarm on 1 of 4 days of {report.model[:12]}: {date(9)}." == report.headline()
    page = monitoring_page(report)
    assert report.alarms[0].alarms[0].found() in page
    assert "What was found, and what to do" in page


def test_values_that_came_to_the_vocabulary_later_are_unknown_to_the_model(
    world: tuple[Path, Contract, Path], tmp_path: Path
) -> None:
    items = next(vocabulary for vocabulary in world[1].vocabularies if vocabulary.name == "item")
    samples = changed(world, tmp_path, day9=replaced("candidate_item_id", some(0.3, items.size)))
    contract = Contract.from_json((tmp_path / "contract.json").read_text())
    old = pq.read_table(tmp_path / str(items.path))
    values = [*old["value"].to_pylist(), "new"]
    file = write_file(tmp_path, "item-2.parquet", pa.table({"value": values, "count": pa.array(range(len(values)))}))
    larger = items.model_copy(update={"path": file.path, "sha256": file.sha256, "size": len(values) + 2})
    vocabularies = tuple(larger if each == items else each for each in contract.vocabularies)
    write_contract(tmp_path, contract.model_copy(update={"vocabularies": vocabularies, "vocabulary_version": 2}))
    report = look(world, samples)
    assert [day.day for day in report.alarms] == [date(9)]
    assert report.alarms[0].alarms[0].name == "unknown candidate_item_id"


def test_labels_that_no_longer_follow_the_model_are_seen_by_its_metrics(
    world: tuple[Path, Contract, Path], tmp_path: Path
) -> None:
    shuffled = replaced("label", lambda labels, rng: rng.permutation(labels))
    report = look(world, changed(world, tmp_path, day9=shuffled))
    assert {measured.name for measured in on(report, 9).alarms} == {"AUC", "logloss"}


def test_days_without_samples_or_clicks_are_alarms_and_not_tracebacks(world: tuple[Path, Contract, Path], tmp_path: Path) -> None:
    nothing: Change = lambda table: table.slice(0, 0)  # noqa: E731
    report = look(world, changed(world, tmp_path, day8=nothing, day9=replaced("label", some(1.0, 0))))
    assert [measured.kind for measured in on(report, 8).alarms] == ["missing"]
    assert on(report, 9).alarms[0].name == "click rate"
    untold = {measured.name for measured in on(report, 9).measures if measured.state == "cannot tell"}
    assert untold == {"AUC", "calibration"}
    assert "undefined" in monitoring_page(report)
    with pytest.raises(MonitoringError, match="a reference day has no samples"):
        look(world, changed(world, tmp_path / "again", day2=nothing))


def test_a_day_that_is_not_there_is_an_alarm(world: tuple[Path, Contract, Path], tmp_path: Path) -> None:
    samples = changed(world, tmp_path)
    contract = Contract.from_json((tmp_path / "contract.json").read_text())
    write_contract(tmp_path, contract.model_copy(update={"days": tuple(day for day in contract.days if day.day != date(9))}))
    report = look(world, samples)
    assert [day.day for day in report.alarms] == [date(9)]
    assert "no samples" in report.text()


def test_calendar_fields_are_left_out(world: tuple[Path, Contract, Path], tmp_path: Path) -> None:
    samples = changed(world, tmp_path, day9=replaced("context_hour", some(1.0, 5)))
    report = look(world, samples, calendar_fields=("hour",))
    assert report.left_out == ("context_hour",)
    assert "values of context_hour" not in {measured.name for measured in on(report, 9).measures}
    assert not report.alarms or "context_hour" not in report.text()


def test_days_and_reference_that_are_named_are_taken(world: tuple[Path, Contract, Path]) -> None:
    report = look(world, str(world[0]), Span(date(9), date(9)), Span(date(3), date(6)))
    assert [day.day for day in report.reference] == [date(place) for place in range(3, 7)]
    assert [day.day for day in report.looked_at] == [date(9)]
    assert "the day" in report.headline()


def published(world: tuple[Path, Contract, Path], leave_out: int = 0, twice: bool = False, version: str = "") -> PublishedScores:
    """The model's own scores of the unseen days, in another order; some of the last day are left out."""
    samples, contract, model = world
    servable = load_servable(model)

    def read(day: dt.date) -> pa.Table:
        chosen = with_days(contract, [each for each in contract.days if each.day == day])
        scores = score_split(servable, chosen, str(samples), CHOSEN).probabilities
        ids = impression_ids(chosen, str(samples), CHOSEN)
        order = np.random.default_rng(0).permutation(len(ids))
        order = order[leave_out:] if day == date(10) else order
        table = pa.table({"impression_id": ids[order], "score": scores[order].astype(np.float64)})
        return pa.concat_tables([table, table.slice(0, 1)]) if twice else table

    return PublishedScores("scores", {date(place): version for place in range(11)}, read)


def test_published_scores_are_joined_by_impression(world: tuple[Path, Contract, Path]) -> None:
    own = look(world, str(world[0]))
    report = look(world, str(world[0]), Span(), None, published(world, version=own.model))
    assert report.scores == "scores"
    assert not report.alarms
    for day, other in zip(own.days, report.days, strict=True):
        mine, read = ({each.name: each.value for each in one.measures} for one in (day, other))
        assert read.pop("unscored") == 0.0
        assert mine == pytest.approx(read, abs=1e-6)


def test_impressions_without_a_score_are_an_alarm(world: tuple[Path, Contract, Path]) -> None:
    version = look(world, str(world[0])).model
    report = look(world, str(world[0]), Span(), None, published(world, leave_out=400, version=version))
    assert [(day.day, day.alarms[0].kind) for day in report.alarms] == [(date(10), "unscored")]


def test_what_cannot_be_monitored_is_refused(world: tuple[Path, Contract, Path], tmp_path: Path) -> None:
    samples, contract, model = world
    version = look(world, str(samples)).model
    with pytest.raises(MonitoringError, match="two scores of one impression"):
        look(world, str(samples), Span(), None, published(world, twice=True, version=version))
    scores = published(world, version=version)
    seen = PublishedScores(scores.folder, {**scores.versions, date(-1): version}, scores.read)
    with pytest.raises(MonitoringError, match=rf"{date(-1)} was scored by .*trained on or chosen by days up to {date(-1)}"):
        look(world, str(samples), Span(), None, seen)
    fewer = contract.model_copy(update={"fields": tuple(f for f in contract.fields if f.column != "context_hour")})
    files = read_vocabularies(fewer, str(samples))
    lineage = lineage_of(fewer, str(samples), "train", "validation", "code")
    save_servable(tmp_path / "fewer", make_model(fewer), "mian", dict(SMALL_MODEL), fewer, files, lineage=lineage)
    with pytest.raises(ContractError, match="field context_hour is new"):
        monitor(str(tmp_path / "fewer"), MonitoringConfig(samples=str(samples)), Span(), None, scores)
    files = read_vocabularies(contract, str(samples))
    save_servable(tmp_path / "no days", load_servable(model).model, "mian", dict(SMALL_MODEL), contract, files)
    with pytest.raises(MonitoringError, match="does not say which days it was trained on"):
        monitor(str(tmp_path / "no days"), MonitoringConfig(samples=str(samples)), Span())


def test_scores_that_are_no_probabilities_are_refused_with_their_day(world: tuple[Path, Contract, Path]) -> None:
    good = published(world, version=look(world, str(world[0])).model)

    def read(day: dt.date) -> pa.Table:
        table = good.read(day)
        return replaced("score", some(0.1, np.nan))(table) if day == date(8) else table

    with pytest.raises(MonitoringError, match=f"the scores of {date(8)} by "):
        look(world, str(world[0]), Span(), None, PublishedScores(good.folder, good.versions, read))


def test_a_day_that_was_not_scored_is_an_alarm(world: tuple[Path, Contract, Path]) -> None:
    good = published(world, version=look(world, str(world[0])).model)
    versions = {day: version for day, version in good.versions.items() if day != date(9)}
    report = look(world, str(world[0]), Span(), None, PublishedScores(good.folder, versions, good.read))
    assert [(day.day, day.alarms[0].found()) for day in report.alarms] == [(date(9), "no samples or no scores")]


@pytest.mark.parametrize("strange", [range(11), [0]], ids=["all", "the first reference day"])
def test_scores_of_other_impressions_are_refused(world: tuple[Path, Contract, Path], strange: Sequence[int]) -> None:
    good = published(world, version=look(world, str(world[0])).model)

    def read(day: dt.date) -> pa.Table:
        others = replaced("impression_id", lambda ids, rng: np.array([f"of another set: {each}" for each in ids]))
        return others(good.read(day)) if day in map(date, strange) else good.read(day)

    with pytest.raises(MonitoringError, match=f"scores: no impression of {date(0)} in the samples has a score"):
        look(world, str(world[0]), Span(), None, PublishedScores(good.folder, good.versions, read))


def test_scores_of_a_model_that_is_not_registered_are_refused(world: tuple[Path, Contract, Path]) -> None:
    with pytest.raises(MonitoringError, match="was scored by 0123456789abcdef, which is no version of a registry"):
        look(world, str(world[0]), Span(), None, published(world, version="0123456789abcdef"))


@pytest.mark.parametrize(
    ("column", "value"), [("label", 0), ("label", 1), ("user_key", 7)], ids=["no clicks", "clicks alone", "one user"]
)
def test_reference_days_that_tell_nothing_of_the_model_are_refused(
    world: tuple[Path, Contract, Path], tmp_path: Path, column: str, value: int
) -> None:
    changes = {f"day{place}": replaced(column, some(1.0, value)) for place in range(11)}
    with pytest.raises(
        MonitoringError, match="fewer than 3 reference days have samples with and without a click, of several users"
    ):
        look(world, changed(world, tmp_path, **changes))


def test_damaged_samples_beside_published_scores_are_one_error(world: tuple[Path, Contract, Path], tmp_path: Path) -> None:
    version, samples = look(world, str(world[0])).model, changed(world, tmp_path)
    file = tmp_path / Contract.from_json((tmp_path / "contract.json").read_text()).days[-1].files[0].path
    file.write_bytes(file.read_bytes()[:-4] + b"none")
    with pytest.raises(StreamError, match=f"damaged .*: rebuild day {date(10)}"):
        look(world, samples, Span(), None, published(world, version=version))
