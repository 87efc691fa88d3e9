"""The monitoring job: its exit codes, what it prints and writes, and the scores that it reads."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from jobs import monitor, train
from mian.contract import Contract, read_contract
from mian.evaluation.chosen_days import CHOSEN, with_days
from mian.evaluation.offline import score_split
from mian.evaluation.split_columns import impression_ids
from mian.serving import load_servable
from pipeline.scoring.manifest import Manifest, ScoredBy, ScoredDay
from tests.factories import write_file, write_samples
from tests.jobs.conftest import Workplace, make_workplace, one_error, working_in


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """A registered model, and six days that it has not seen."""
    folder = tmp_path_factory.mktemp("monitored")
    write_samples(folder / "samples", test=((400,),) * 6)
    place = make_workplace(folder, folder / "samples")
    with working_in(place.folder):
        assert train.main(["--config", str(place.config), "epochs=2", "test_split=null"]) == 0
        Path("monitoring.yaml").write_text(yaml.safe_dump({"samples": "samples", "reference_days": 4}))
        yield place


@pytest.fixture
def run(learned: Workplace) -> Callable[..., int]:
    def monitor_(*arguments: str, model: str = "models:/mian@newest") -> int:
        return monitor.main(["--model", model, "--config", "monitoring.yaml", *arguments])

    return monitor_


def test_quiet_days_end_with_0_and_a_day_that_differs_with_2(run: Callable[..., int], learned: Workplace, capsys: Any) -> None:
    assert run("--report", "page.html", "--json", "figures.json") == 0
    said = capsys.readouterr().out
    assert "No alarm: mian/1" in said
    assert said.count("reference") == 4
    figures = json.loads(Path("figures.json").read_text())
    assert figures["format"] == "mian-monitoring"
    assert len(figures["days"]) == 6
    assert "No alarm: mian/1" in Path("page.html").read_text()

    contract = read_contract("samples")
    days = tuple(day for day in contract.days if day.day != contract.days[-2].day)
    Path("samples", "contract.json").write_text(contract.model_copy(update={"days": days}).to_json())
    try:
        assert run("--report", "page.html") == 2
    finally:
        Path("samples", "contract.json").write_text(contract.to_json())
    assert "Alarm on 1 of 2 days" in capsys.readouterr().out
    assert "Alarm on 1 of 2 days" in Path("page.html").read_text()


def test_errors_end_with_1_and_leave_no_page(run: Callable[..., int], capsys: Any) -> None:
    assert run("reference_days=6", "--report", "none.html") == 1
    assert "no final day is left to look at" in one_error(capsys)
    assert run("--report", "none.pdf") == 1
    assert "none.pdf" in one_error(capsys)
    assert run("--to", "2027-01-01", "--report", "none.html") == 1
    assert "2027-01-01 is not built" in one_error(capsys)
    assert run("--from", "2026-03-02") == 1
    assert "2026-03-02 is asked for, and the model was trained on" in one_error(capsys)
    assert run("samples=nothing") == 1
    assert "nothing/contract.json: no such file" in one_error(capsys)
    assert run(model="models:/mian@nobody") == 1
    assert "nobody" in one_error(capsys)
    assert run("--scores", "nothing") == 1
    assert "_manifest.json: no such file; name the folder that jobs/score.py wrote" in one_error(capsys)
    with pytest.raises(SystemExit) as stopped:
        run("--from", "yesterday")
    assert stopped.value.code == 1
    assert not Path("none.html").exists()


def publish(folder: Path, contract: Contract, model: str, version: str, digest: str = "") -> None:
    """Scores as jobs/score.py publishes them."""
    servable = load_servable(model)
    moment = dt.datetime(2026, 4, 1, tzinfo=dt.timezone.utc)
    by = ScoredBy(model_version=version, model="m", settings="s", inputs="i", smallest_group=1, samples_version=1)
    days = []
    for day in contract.split("test"):
        chosen = with_days(contract, [day])
        ids = impression_ids(chosen, "samples", CHOSEN)
        scores = score_split(servable, chosen, "samples", CHOSEN).probabilities.astype(np.float64)
        file = write_file(folder, f"day={day.day}/part-00000.parquet", pa.table({"impression_id": ids, "score": scores}))
        file = file.model_copy(update={"sha256": digest or file.sha256})
        days.append(ScoredDay(day=day.day, rows=file.rows, scored_by=by, scored_at=moment, files=(file,)))
    (folder / "_manifest.json").write_text(Manifest(name="small", days=tuple(days)).to_json())


def test_published_scores_are_monitored(run: Callable[..., int], learned: Workplace, tmp_path: Path, capsys: Any) -> None:
    (model,) = learned.models
    contract = read_contract("samples")
    publish(tmp_path, contract, str(model), "mian/1")
    assert run("--scores", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run() == 0
    assert lines == capsys.readouterr().out.splitlines(), "the same scores, the same metrics"

    publish(tmp_path, contract, str(model), "mian/2")
    assert run("--scores", str(tmp_path)) == 1
    assert "mian" in one_error(capsys)
    publish(tmp_path, contract, str(model), "mian/1", digest="0" * 64)
    assert run("--scores", str(tmp_path)) == 1
    assert "does not have the checksum that the manifest says" in one_error(capsys)
    (tmp_path / f"day={contract.split('test')[0].day}" / "part-00000.parquet").unlink()
    assert run("--scores", str(tmp_path)) == 1
    assert "no such file, though the manifest names it" in one_error(capsys)
