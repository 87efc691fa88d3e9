"""What a scoring run leaves as it is, does anew, and refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import ContractError
from pipeline.config import DataConfig
from pipeline.dataset.lock import DatasetLock
from pipeline.io.files import LocalFiles
from pipeline.logs.errors import LogError
from pipeline.scoring.settings import refuse_other_settings
from tests.factories import make_model, write_servable
from tests.pipeline.scoring.conftest import model_of, read, score
from tests.support.candidate_logs import DAYS, OPTIONS, Shop, shop_config
from tests.support.published import files


@pytest.fixture(scope="module")
def finished(spark: SparkSession, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    score(spark, shop, output, first=DAYS[-1])
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """The scores of the last day."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture(scope="module")
def other_model(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_model(shop.contract, options=OPTIONS, seed=1)
    folder = tmp_path_factory.mktemp("other") / "model"
    return write_servable(folder, model, shop.contract, shop.config.samples, options=OPTIONS)


def inodes(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in folder.glob("day=*/*")}


def test_a_second_run_does_nothing_for_finished_days(spark: SparkSession, shop: Shop, output: Path) -> None:
    before, there = files(output), inodes(output)
    report = score(spark, shop, output, first=DAYS[-1], scored_at=None)
    assert (report.scored, report.kept) == ((), (DAYS[-1],))
    assert files(output) == before
    assert inodes(output) == there
    report = score(spark, shop, output, scored_at=None)
    assert (report.scored, report.kept) == ((DAYS[-2],), (DAYS[-1],))
    assert inodes(output).items() >= there.items()
    assert read(output)["scored_at"].nunique() == 2
    assert sorted(path.name for path in output.iterdir()) == ["_locks", "_manifest.json", f"day={DAYS[-2]}", f"day={DAYS[-1]}"]


def test_another_model_is_refused_for_a_finished_day(spark: SparkSession, shop: Shop, output: Path, other_model: Path) -> None:
    before = files(output)
    for model, said in (
        (model_of(other_model, "mian/4"), f"{DAYS[-1]} is finished and was scored by the model mian/3, and now it is mian/4"),
        (model_of(other_model), f"{DAYS[-1]} is finished and was scored by other files of the model mian/3"),
    ):
        with pytest.raises(ContractError, match=f"{said}; say --overwrite"):
            score(spark, shop, output, model)
        assert files(output) == before
    report = score(spark, shop, output, model_of(other_model, "mian/4"), first=DAYS[-1], overwrite=True)
    assert report.scored == (DAYS[-1],)
    assert set(read(output)["model_version"]) == {"mian/4"}
    named = {file.path for day in report.manifest.days for file in day.files}
    assert {str(path.relative_to(output)) for path in output.glob("day=*/*")} == named


def test_other_candidates_are_refused_for_a_finished_day(spark: SparkSession, shop: Shop, output: Path, tmp_path: Path) -> None:
    shutil.copytree(shop.candidates, tmp_path / "candidates")
    (path,) = (tmp_path / "candidates" / f"day={DAYS[-1]}").iterdir()
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.slice(1), path)
    with pytest.raises(ContractError, match="was scored by other rows of the candidates"):
        score(spark, shop, output, impressions=str(tmp_path / "candidates"))
    report = score(spark, shop, output, impressions=str(tmp_path / "candidates"), first=DAYS[-1], overwrite=True)
    assert report.manifest.days[0].rows == rows.num_rows - 1


def test_a_damaged_day_is_scored_again(spark: SparkSession, shop: Shop, output: Path) -> None:
    before = files(output)
    path = next(output.glob("day=*/part-*"))
    path.write_bytes(path.read_bytes()[:-1])
    assert score(spark, shop, output, first=DAYS[-1]).scored == (DAYS[-1],)
    assert files(output) == before


def test_a_folder_of_something_else_is_refused(spark: SparkSession, shop: Shop, tmp_path: Path, output: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(ContractError, match=r"not empty, and holds no scores \(notes.txt\)"):
        score(spark, shop, tmp_path / "full")
    with pytest.raises(ContractError, match="or one is inside the other"):
        score(spark, shop, shop.candidates / "scores")
    renamed = Shop(shop.folder, shop.config.model_copy(update={"name": "others"}), shop.contract, shop.model)
    with pytest.raises(ContractError, match="holds scores of the data set 'pages', and the configuration is of 'others'"):
        score(spark, renamed, output)
    with DatasetLock(LocalFiles(), str(output)), pytest.raises(ContractError, match="scores into this folder now"):
        score(spark, shop, output)


def test_candidates_that_are_not_there_are_named(spark: SparkSession, shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"no such path: .*/nowhere"):
        score(spark, shop, tmp_path / "out", impressions=str(tmp_path / "nowhere"))
    with pytest.raises(LogError, match=r"no candidates with a day in .* between 2027-01-01 and the last day"):
        score(spark, shop, tmp_path / "out", first=DAYS[0].replace(year=2027, month=1))
    assert not (tmp_path / "out").exists()


def test_too_many_rows_that_break_a_rule_stop_the_run_before_anything_is_published(
    spark: SparkSession, shop: Shop, tmp_path: Path
) -> None:
    target = tmp_path / "candidates" / f"day={DAYS[-1]}"
    target.mkdir(parents=True)
    rows = pq.read_table(shop.candidates / f"day={DAYS[-1]}" / "part-0.parquet", partitioning=None)
    for part in range(2):
        pq.write_table(rows, target / f"{part}.parquet")
    with pytest.raises(LogError, match="of the candidates are duplicates of others"):
        score(spark, shop, tmp_path / "out", impressions=str(tmp_path / "candidates"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_locks", "_runs"]


FIELDS = shop_config(Path("/")).model_dump(mode="json", by_alias=True, exclude_unset=True)["fields"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fields": {**FIELDS, "user": {}}}, "field user_age is missing"),
        ({"fields": {**FIELDS, "user": {"age": {}, "user_id": {}}}}, "field user_user_id is unknown to the model"),
        (
            {"fields": {**FIELDS, "candidate": {"item_id": {}, "category": {"vocabulary": "x"}}}},
            "field candidate_category is of another",
        ),
        ({"fields": {**FIELDS, "user": {"age": {"expression": "upper(age)"}}}}, "fields is another one"),
        ({"history": {"length": 4, "days": 2}}, "history.length is 4, not 5"),
        ({"history": {"length": 5, "days": 2, "lag_hours": 1}}, "history.lag_hours is 1.0, not 0.0"),
        ({"history": {"length": 5, "days": 2, "cutoff": "previous_day"}}, "history.cutoff is previous_day, not impression"),
        ({"day_time_zone": "Europe/Zurich"}, "day_time_zone is Europe/Zurich, not UTC"),
        ({"quality": {"clock_skew_seconds": 1}}, "clock_skew_seconds is another one"),
    ],
)
def test_a_configuration_that_differs_from_the_models_is_refused(shop: Shop, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=rf"was trained on: .*{said}.*Give --config") as error:
        refuse_other_settings(shop_config(shop.folder, **changes), shop.contract, "mian/3")
    assert "mian/3" in str(error.value)


def test_another_source_of_behaviors_is_refused(shop: Shop) -> None:
    for kind, said in (("labels", "log.kind is labeled"), ("lists", "history.recorded is undated, not None")):
        with pytest.raises(ContractError, match=said):
            refuse_other_settings(shop_config(shop.folder, kind), shop.contract, "mian/3")


@pytest.mark.parametrize(
    "changes",
    [
        {"vocabularies": {"item_id": {"min_count": 9}}},
        {"rows_per_file": 1000},
        {"sampling": {"negatives": 0.5}},
        {"quality": {"max_duplicates": 0.9}},
        {"samples": "elsewhere"},
    ],
)
def test_what_decides_no_score_may_differ(shop: Shop, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]) -> None:
    refuse_other_settings(shop_config(shop.folder, **changes), shop.contract, "mian/3")
    assert not caplog.records
    moved: DataConfig = shop_config(shop.folder / "elsewhere")
    refuse_other_settings(moved, shop.contract, "mian/3")
    assert "log, users, items of the configuration are not those" in caplog.text
