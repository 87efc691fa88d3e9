from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mian.contract import Contract, ContractError, read_contract
from pipeline.build import BuildReport, build_samples
from pipeline.dataset.folder import DatasetFolder
from pipeline.dataset.lock import DatasetLock
from tests.support.published import files
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    folder = tmp_path_factory.mktemp("small")
    write_logs(folder)
    return folder, build_samples(spark, config(folder), DAYS[0], DAYS[-1])


@pytest.fixture
def copy(world: tuple[Path, BuildReport], tmp_path: Path) -> Path:
    """Logs and samples of one's own; file times are kept, and with them the fingerprints, but for the paths."""
    shutil.copytree(world[0], tmp_path / "logs")
    return tmp_path / "logs"


def test_the_contract_names_what_is_there(world: tuple[Path, BuildReport]) -> None:
    folder, report = world
    samples = folder / "samples"
    contract = read_contract(str(samples))
    assert contract == report.contract
    assert [day.day for day in contract.days] == DAYS
    named = {v.path for v in contract.vocabularies}
    for day in contract.days:
        assert day.rows == sum(file.rows for file in day.files) == 60
        for file in day.named_files:
            content = (samples / file.path).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
            named.add(file.path)
            if file == day.statistics:
                continue
            footer = pq.read_metadata(samples / file.path)
            assert (footer.num_row_groups, footer.num_rows) == (1, file.rows)
            named.add(file.path)
    assert set(files(samples)) == named
    labels = [label for day in contract.days for f in day.files for label in pq.read_table(samples / f.path)["label"].to_pylist()]
    assert sum(day.positives for day in contract.days) == sum(labels)
    assert len(contract.days[0].files) == 3  # 60 rows, 25 a file


def test_rows_of_a_file_are_in_no_order_of_time(world: tuple[Path, BuildReport]) -> None:
    folder, report = world
    for file in report.contract.days[0].files:
        times = pq.read_table(folder / "samples" / file.path)["time"].to_pylist()
        assert times != sorted(times)


def test_vocabularies_know_training_days_only(world: tuple[Path, BuildReport]) -> None:
    folder, report = world
    for day in report.contract.split("test"):
        for file in day.files:
            assert set(pq.read_table(folder / "samples" / file.path)["candidate_item_id"].to_pylist()) == {1}
    vocabulary = report.contract.vocabulary("item_id")
    values = pq.read_table(folder / "samples" / vocabulary.path)["value"].to_pylist()
    assert vocabulary.size == len(values) + 2
    assert all(int(value[1:]) < 100 for value in values)


def test_days_outside_the_training_split_keep_raw_examples(world: tuple[Path, BuildReport]) -> None:
    folder, report = world
    assert [day.examples is not None for day in report.contract.days] == [False] * 4 + [True] * 2
    day = report.contract.days[-1]
    assert day.examples is not None
    rows = pq.read_table(folder / "samples" / day.examples.path).to_pylist()
    assert all(row["candidate_item_id"].startswith("i1") and isinstance(row["context_bid"], float) for row in rows)
    encoded = {row["impression_id"]: row for f in day.files for row in pq.read_table(folder / "samples" / f.path).to_pylist()}
    assert all(len(row["behavior_item_id"]) == encoded[row["impression_id"]]["behavior_length"] for row in rows)


def test_a_second_build_with_nothing_changed_builds_nothing(spark: SparkSession, world: tuple[Path, BuildReport]) -> None:
    folder, _ = world
    before = files(folder / "samples")
    report = build_samples(spark, config(folder), DAYS[0], DAYS[-1])
    assert (report.built, list(report.kept)) == ((), DAYS)
    assert files(folder / "samples") == before


def test_days_built_one_by_one_and_again_have_the_same_bytes(
    spark: SparkSession, world: tuple[Path, BuildReport], tmp_path: Path
) -> None:
    folder, _ = world
    settings = config(folder).model_copy(update={"samples": str(tmp_path / "samples")})
    for day in reversed(DAYS):
        build_samples(spark, settings, day, day)
    assert files(tmp_path / "samples") == files(folder / "samples")


def test_only_days_whose_logs_changed_are_built_again(spark: SparkSession, copy: Path) -> None:
    settings = config(copy)
    build_samples(spark, settings, DAYS[0], DAYS[-1])  # the copy's paths are new, so are its fingerprints
    changed = copy / "clicks" / f"day={DAYS[3]}" / "part-0.parquet"
    pq.write_table(pq.read_table(changed).slice(1), changed)
    report = build_samples(spark, settings, DAYS[0], DAYS[-1])
    # its clicks are labels of its own day and of the day before, and behaviors of the two days after
    assert list(report.built) == DAYS[1:6]
    assert report.contract == read_contract(settings.samples)


def test_another_configuration_of_the_fields_needs_all_published_days(spark: SparkSession, copy: Path) -> None:
    build_samples(spark, config(copy), DAYS[0], DAYS[-1])
    before, bytes_before = read_contract(str(copy / "samples")), files(copy / "samples")
    settings = config(copy, fields=config(copy).model_dump()["fields"] | {"user": {}})
    with pytest.raises(
        ContractError, match=r"configuration changed \(fields\).* 4 of the 6 published days would be missing: 2026-03-01"
    ):
        build_samples(spark, settings, DAYS[2], DAYS[3])
    assert read_contract(settings.samples) == before
    assert files(copy / "samples") == bytes_before

    report = build_samples(spark, settings, DAYS[0], DAYS[-1])
    assert list(report.built) == DAYS
    assert not any(field.group == "user" for field in report.contract.fields)
    assert report.contract.publication.generation == before.publication.generation + 1
    # those of the generation before stay
    assert bytes_before.items() <= files(copy / "samples").items()

    few = build_samples(spark, config(copy, seed=3), DAYS[2], DAYS[3], drop_days=True).contract
    assert [day.day for day in few.days] == DAYS[2:4]
    # of three generations the last two stay
    named = {path for contract in (report.contract, few) for path in contract.named_files}
    assert set(files(copy / "samples")) == named


def test_a_build_that_stops_half_way_leaves_the_data_set_as_it_was(
    spark: SparkSession, world: tuple[Path, BuildReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = world
    settings = config(folder).model_copy(update={"samples": str(tmp_path / "samples")})
    build_samples(spark, settings, DAYS[0], DAYS[1])
    before = files(tmp_path / "samples")
    (tmp_path / "samples" / "notes.txt").write_text("not ours")

    def stopped(self: DatasetFolder, contract: Contract, lock: DatasetLock) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DatasetFolder, "publish", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_samples(spark, settings, DAYS[0], DAYS[-1])
    contract = read_contract(settings.samples)
    assert [day.day for day in contract.days] == DAYS[:2]
    assert before.items() <= files(tmp_path / "samples").items()

    build_samples(spark, settings, DAYS[0], DAYS[-1])
    after = files(tmp_path / "samples")
    assert after.pop("notes.txt")
    assert after == files(folder / "samples")
