from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import import_logs
from tests.support.generated import movielens_100k


@pytest.fixture(autouse=True)
def _shared_session(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends its session, which here is that of all tests."""
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--dataset", "movielens-100k", "--input", str(folder / "ml-100k"), "--output", str(folder / "logs"), *more]


def test_an_import_is_whole_and_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    movielens_100k(tmp_path / "ml-100k")
    assert import_logs.main(arguments(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "6 rows from 1997-09-20 to 1998-04-22, 209 of the 215 days empty" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "ml-100k"]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "logs").rglob("*") if path.is_file()}

    assert import_logs.main(arguments(tmp_path)) == 0
    assert capsys.readouterr().out == said
    assert {path: path.stat().st_mtime_ns for path in written} == written

    ratings = tmp_path / "ml-100k" / "u.data"
    ratings.write_text(ratings.read_text() + "8\t267\t1\t892000000\n")
    assert import_logs.main(arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "holds another import (u.data has changed since); --overwrite replaces it" in error
    assert {path: path.stat().st_mtime_ns for path in written} == written

    assert import_logs.main(arguments(tmp_path, "--overwrite")) == 0
    assert "7 rows from 1997-09-20 to 1998-04-22" in capsys.readouterr().out


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    movielens_100k(tmp_path / "ml-100k")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "precious").touch()
    assert import_logs.main(arguments(tmp_path, "--overwrite")) == 1
    assert "is there and holds no import" in capsys.readouterr().err
    assert (tmp_path / "logs" / "precious").exists()


def test_missing_files_end_with_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_logs.main(arguments(tmp_path)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "no file u.data, plain or with .gz" in errors[0]


def test_an_unknown_set_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        import_logs.main(["--dataset", "netflix", "--input", "a", "--output", "b"])
    assert "movielens-100k" in capsys.readouterr().err
