"""Local files through Python and through Hadoop do the same, so that what is tested on one holds on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mian.contract import read_contract
from pipeline.build import build_samples, rollback
from pipeline.io.files import Files, LocalFiles
from pipeline.io.storage import HadoopFiles
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark

KINDS: dict[str, Callable[[SparkSession], Files]] = {"python": lambda spark: LocalFiles(), "hadoop": HadoopFiles}


@pytest.fixture(params=KINDS)
def system(request: pytest.FixtureRequest, spark: SparkSession) -> Files:
    return KINDS[request.param](spark)


def test_a_file_is_written_whole_and_replaced(system: Files, tmp_path: Path) -> None:
    path = f"{tmp_path}/a b/ü{{1}}[2].json"
    system.write(path, b"one")
    system.write(path, b"two")
    assert system.read_bytes(path) == b"two"
    assert system.sha256(path) == hashlib.sha256(b"two").hexdigest()
    assert [file.name for file in (tmp_path / "a b").iterdir()] == ["ü{1}[2].json"]
    info = system.info(path)
    assert info is not None
    assert (info.size, abs(info.modified / 1000 - Path(path).stat().st_mtime) < 1) == (3, True)


def test_a_file_that_is_there_is_not_created(system: Files, tmp_path: Path) -> None:
    path = f"{tmp_path}/_locks/000001.json"
    assert system.create(path, b"first")
    assert not system.create(path, b"second")
    assert system.read_bytes(path) == b"first"
    assert system.children(f"{tmp_path}/_locks") == ["000001.json"]


def test_a_file_is_renamed_onto_another(system: Files, tmp_path: Path) -> None:
    (tmp_path / "staged").write_text("new")
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=1" / "part").write_text("old")
    system.replace(f"{tmp_path}/staged", f"{tmp_path}/day=1/part")
    assert (tmp_path / "day=1" / "part").read_text() == "new"
    (tmp_path / "staged").write_text("newer")
    system.replace(f"{tmp_path}/staged", f"{tmp_path}/day=2/part")
    assert (tmp_path / "day=2" / "part").read_text() == "newer"


def test_what_is_not_there_is_nothing(system: Files, tmp_path: Path) -> None:
    missing = f"{tmp_path}/none"
    assert not system.exists(missing)
    assert system.info(missing) is None
    assert system.children(missing) == []
    system.remove(missing)
    system.remove_empty(missing)
    assert list(tmp_path.iterdir()) == []


def test_files_are_those_that_spark_reads(system: Files, tmp_path: Path) -> None:
    shown = ["a.parquet", "day=1/b.parquet", "_column=2/c.parquet"]
    for name in [*shown, "_temporary/d.parquet", ".hidden/e.parquet", "day=1/_SUCCESS", "day=1/.f.crc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = {file.path.partition(f"{tmp_path}/")[2] for file in system.files(str(tmp_path))}
    assert found == set(shown)
    assert [file.size for file in system.files(f"{tmp_path}/a.parquet")] == [1]


def test_folders_are_removed_with_what_is_in_them_or_only_when_they_are_empty(system: Files, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    system.remove_empty(f"{tmp_path}/full")
    assert system.exists(f"{tmp_path}/full/file")
    system.remove(f"{tmp_path}/full")
    (tmp_path / "empty").mkdir()
    system.remove_empty(f"{tmp_path}/empty")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_is_built_damaged_and_rolled_back_through_hadoop(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HadoopFiles, "is_local", lambda self, path: False)
    write_logs(tmp_path, per_day=20)
    settings = config(tmp_path)
    first = build_samples(spark, settings, DAYS[0], DAYS[1]).contract
    assert build_samples(spark, settings, DAYS[0], DAYS[1]).built == ()
    path = Path(settings.samples) / first.days[0].files[0].path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert build_samples(spark, settings, DAYS[0], DAYS[1]).built == (DAYS[0],)
    assert path.read_bytes() == content
    second = build_samples(spark, config(tmp_path, seed=1), DAYS[0], DAYS[1]).contract
    assert second.publication.generation == first.publication.generation + 1
    assert rollback(spark, settings, None).days == first.days == read_contract(settings.samples).days
