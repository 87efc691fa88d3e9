"""The page of benchmarks is generated from its records, and records that lack something are refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import render
from benchmarks.render import PAGE, RESULTS, ROOT, RecordError, main, read_benchmarks, render_page

RECORD: dict[str, Any] = {
    "commit": {"hash": "0123abc", "role": "measured"},
    "date": "2026-11-30",
    "processor": "2 cores",
    "command": "python benchmarks/speed.py",
    "note": "One run.",
    "measurements": [{"case": {"batch": 1024}, "figures": {"rate": 1234.5, "ratio": {"low": 1.1, "high": 1.25}}}],
}
BENCHMARK: dict[str, Any] = {
    "title": "Speed",
    "section": "Training",
    "order": 1,
    "measures": "The speed.",
    "compared_with": "It is compared with nothing.",
    "case_columns": {"batch": "batch"},
    "columns": {"rate": {"label": "rate", "unit": "samples/s"}, "ratio": {"label": "ratio", "digits": 2}},
    "records": [RECORD],
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / render.SETTINGS).write_text("## Choosing settings\n\nNone.\n")
    return tmp_path


def write(results: Path, *records: Any, **changes: Any) -> Path:
    path = results / "speed.json"
    path.write_text(json.dumps(BENCHMARK | {"records": list(records) or [RECORD]} | changes))
    return path


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| ")][2:]


def test_the_page_is_what_the_records_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(RESULTS), f"run {render.COMMAND}"


def test_programs_and_configurations_that_commands_name_are_there() -> None:
    for name, benchmark in read_benchmarks(RESULTS).items():
        for record in benchmark.records:
            for path in re.findall(r"\b(?:benchmarks|jobs|scripts|conf|tests)/[\w./-]+", f"{record.command} {record.note}"):
                assert (ROOT / path.rstrip(".")).exists(), f"{name}.json names {path}"


@pytest.mark.parametrize("field", RECORD)
def test_a_record_that_lacks_a_field_is_refused_with_file_and_field(results: Path, field: str) -> None:
    path = write(results, {key: value for key, value in RECORD.items() if key != field})
    with pytest.raises(RecordError, match=re.escape(f"{path}: records.0.{field}: Field required")):
        render_page(results)


def test_a_commit_says_what_it_is_to_the_figures(results: Path) -> None:
    path = write(results, RECORD | {"commit": {"hash": "0123abc"}})
    with pytest.raises(RecordError, match=re.escape(f"{path}: records.0.commit.role: Field required")):
        render_page(results)


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        ({"case": {"batch": 1}, "figures": {"speed": 1}}, "records.0: no column is named 'speed'"),
        ({"case": {"size": 1}, "figures": {"rate": 1}}, "records.0: a case has the keys ['size'], not ['batch']"),
        ({"case": {"batch": 1}, "figures": {"rate": {"low": 2, "high": 1}}}, "lies between low and high"),
        ({"case": {"batch": 1}, "figures": {"rate": {"deviation": 1}}}, "a deviation needs a value"),
    ],
)
def test_figures_that_make_no_sense_are_refused(results: Path, measurement: Any, said: str) -> None:
    path = write(results, RECORD | {"measurements": [measurement]})
    with pytest.raises(RecordError, match=re.escape(said)) as caught:
        render_page(results)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_no_json_is_named(results: Path) -> None:
    (results / "speed.json").write_text("{")
    with pytest.raises(RecordError, match=r"speed\.json: Invalid JSON"):
        render_page(results)


def test_two_tables_do_not_share_a_title(results: Path) -> None:
    other = results / "other.json"
    shutil.copy(write(results), other)
    with pytest.raises(RecordError, match=r"speed\.json: title: 'Speed' is that of other as well"):
        render_page(results)


def test_repetitions_become_one_row_with_a_spread(results: Path) -> None:
    def repeated(rate: float) -> Any:
        return RECORD | {"measurements": [{"case": {"batch": 1024}, "figures": {"rate": rate, "ratio": rate / 1000}}]}

    write(results, repeated(1000), repeated(2000), repeated(1300))
    assert rows(render_page(results)) == ["| 1,024 | 1,300 (1,000 to 2,000) | 1.30 (1.00 to 2.00) | 1, 2, 3 |"]
    write(results, repeated(1000), repeated(2000))
    assert rows(render_page(results)) == ["| 1,024 | 1,000 to 2,000 | 1.00 to 2.00 | 1, 2 |"]


def test_repetitions_on_different_processors_are_refused(results: Path) -> None:
    path = write(results, RECORD, RECORD | {"processor": "4 cores"})
    with pytest.raises(RecordError, match=re.escape(f"{path}: records.0 and records.1 have 'rate' of one case")):
        render_page(results)


def test_a_table_shows_figures_and_where_they_come_from(results: Path) -> None:
    write(results)
    page = render_page(results)
    assert rows(page) == ["| 1,024 | 1,234.5 | 1.10 to 1.25 | 1 |"]
    assert "| batch | rate (samples/s) | ratio | record |" in page
    assert "    python benchmarks/speed.py\n" in page
    assert "1. 2026-11-30, `0123abc` (measured); 2 cores. One run.\n" in page
    write(results, RECORD | {"command_inferred": True, "rounds": 3})
    assert "2 cores; 3 rounds; `python benchmarks/speed.py` (inferred)." in " ".join(render_page(results).split())


def test_a_stale_page_is_told_with_the_command_that_mends_it(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = results / "benchmarks.md"
    monkeypatch.setattr(render, "RESULTS", results)
    monkeypatch.setattr(render, "PAGE", page)
    write(results)
    assert main(["--check"]) == 1
    assert capsys.readouterr().err == f"error: {page} is not what the records give: run python -m benchmarks.render\n"
    assert not page.exists()
    assert main([]) == 0
    assert main(["--check"]) == 0
    write(results, title="Another")
    assert main(["--check"]) == 1
    write(results, order="first")
    assert main([]) == 1
    assert "speed.json: order: " in capsys.readouterr().err
