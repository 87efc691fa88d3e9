"""The explaining job, on a model that a training registered."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobs import explain
from mian.serving import explain as explain_rows
from mian.tracking.registry import load_model
from tests.factories import read_examples
from tests.jobs.conftest import Finished, one_error

MODEL = "models:/mian@newest"


def row_of(place: Finished) -> dict[str, Any]:
    raw = read_examples(place.samples, place.contract, "test").iloc[[3]]
    columns = [field.column for field in place.contract.fields]
    row: dict[str, Any] = json.loads(raw[columns].to_json(orient="records"))[0]
    return row


def command(place: Finished, *arguments: str) -> list[str]:
    return ["--model", MODEL, "--tracking-uri", f"sqlite:///{place.folder}/mlflow.db", *arguments]


def test_it_prints_writes_and_draws_what_the_model_looked_at(beside: Finished, tmp_path: Path, capsys: Any) -> None:
    row = row_of(beside)
    (tmp_path / "row.json").write_text(json.dumps(row))
    assert explain.main(command(beside, "--row", "row.json", "--json", "out.json", "--plot", "out.png")) == 0
    printed = capsys.readouterr().out
    document = json.loads((tmp_path / "out.json").read_text())
    assert f"probability of a click: {document['probability']:.6f}" in printed
    (expected,) = explain_rows(load_model(MODEL), pd.DataFrame({name: [value] for name, value in row.items()}))
    assert [line["weight"] for line in document["explanation"]] == pytest.approx(expected["weight"].tolist())
    for line in document["explanation"]:
        assert f"{line['weight']:.4f}" in printed
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_may_stand_on_the_command_line(beside: Finished, capsys: Any) -> None:
    assert explain.main(command(beside, "--row", json.dumps(row_of(beside)))) == 0
    assert "GIM" in capsys.readouterr().out


def test_nan_for_a_history_and_whole_numbers_are_explained(beside: Finished, tmp_path: Path) -> None:
    history = [field.column for field in beside.contract.group("behaviors")]
    row = {**row_of(beside), **dict.fromkeys(history, float("nan")), "candidate_item_id": 7, "context_slot": float("inf")}
    assert explain.main(command(beside, "--row", json.dumps(row), "--json", "out.json")) == 0
    lines = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)["explanation"]
    assert [line for line in lines if line["module"] == "IBIM"] == []
    assert {line["name"]: line["value"] for line in lines if line["module"] == "ICIM"} == {
        "context_hour": row["context_hour"],
        "context_slot": "inf",
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nowhere.json", "nowhere.json is no JSON object, and no file that can be read"),
        ('{"candidate_item_id": ', "--row: not JSON"),
        ('{"candidate_item_id": ' + "1" * 5000 + "}", "--row: not JSON"),
        ("[" * 100_000, "--row: not JSON"),
        ("[1]", "a JSON object is needed, with a value for each column, got list"),
        ('{"candidate_item_id": "i1"}', "the input lacks the column"),
    ],
)
def test_a_row_that_is_none_is_told_in_one_line(beside: Finished, capsys: Any, row: str, said: str) -> None:
    assert explain.main(command(beside, "--row", row)) == 1
    assert said in one_error(capsys)


def test_a_plot_of_another_kind_is_told_before_anything_is_scored(beside: Finished, capsys: Any) -> None:
    assert explain.main(command(beside, "--row", "{}", "--plot", "plot.xyz")) == 1
    assert "--plot: plot.xyz does not end in .png or .svg or .pdf; give a name that does" in one_error(capsys)
