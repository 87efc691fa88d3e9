"""The job at its edge: the page and exit code 0, or one clear sentence and 1."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import describe
from tests.support.small_set import table, write_set


def test_the_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "samples")
    output = tmp_path / "page.html"
    assert describe.main(["--samples", str(tmp_path / "samples"), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert table(output.read_text(encoding="utf-8"), "table1")[1] == ["small set", "6", "4", "2", "400"]


@pytest.mark.parametrize("damage", ["no contract", "no statistics", "no days"])
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    samples, output = tmp_path / "samples", tmp_path / "page.html"
    write_set(samples, **({"days": ()} if damage == "no days" else {}))
    if damage == "no contract":
        (samples / "contract.json").unlink()
    if damage == "no statistics":
        (samples / "day=2026-03-03" / "statistics.json").unlink()
    assert describe.main(["--samples", str(samples), "--output", str(output)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {samples}")
    assert not output.exists()


def test_it_needs_neither_spark_nor_torch() -> None:
    strangers = "{'pyspark', 'torch', 'mlflow', 'petastorm'}"
    code = f"import sys, jobs.describe; sys.exit(bool({strangers} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
