from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import audit_samples
from mian.contract import read_contract
from pipeline.build import build_samples
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _shared_session(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends its session, which here is that of all tests."""
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, samples and their configuration in a file."""
    folder = tmp_path_factory.mktemp("small")
    write_logs(folder, per_day=20)
    settings = config(folder)
    build_samples(spark, settings, DAYS[0], DAYS[2])
    (folder / "data.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """Samples of one's own."""
    shutil.copytree(built / "samples", tmp_path / "samples")
    return tmp_path / "samples"


def run(built: Path, *more: str) -> int:
    return audit_samples.main(["--config", str(built / "data.yaml"), *more])


def first_file(samples: Path) -> Path:
    return samples / read_contract(str(samples)).days[0].files[0].path


def refused(built: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert run(built, *more) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_honest_samples_end_with_0(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(built, "--rows", "20", "--seed", str(2**63 - 1)) == 0
    said = capsys.readouterr().out
    assert f"{built / 'samples'}: audited by the rules of {built / 'data.yaml'}" in said
    assert "rows, drawn from the samples and from the log with seed 9223372036854775807, every column" in said
    assert said.endswith("nothing found\n")


def test_findings_are_printed_and_end_with_1(built: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first_file(copy)
    table = pq.read_table(path, partitioning=None)
    labels = pa.array([1 - label for label in table["label"].to_pylist()], pa.int32())
    pq.write_table(table.set_column(table.column_names.index("label"), "label", labels), path)
    assert run(built, "--rows", "1", f"samples={copy}") == 1
    said = capsys.readouterr().out
    assert "file: 1 finding\n" in said
    assert f"label: {table.num_rows} finding" in said
    assert "label: the samples hold 1; the logs say no click of it within 24 h after it, at 2026-03-01 " in said
    assert said.endswith(" findings\n")


def test_what_cannot_be_audited_is_one_error(built: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file; run jobs/build_samples.py first" in refused(built, capsys, f"samples={tmp_path / 'none'}")
    assert "log.clicks: no such path" in refused(built, capsys, f"log.clicks.path={tmp_path / 'none'}")
    assert "unknown key 'smaples'" in refused(built, capsys, "smaples=here")
    path = first_file(copy)
    path.write_bytes(b"not Parquet")
    assert "Spark could not read" in refused(built, capsys, f"samples={copy}")
    path.unlink()
    assert "the contract names it and it is not there" in refused(built, capsys, f"samples={copy}")
    (copy / "contract.json").write_text("{")
    assert "not a JSON document" in refused(built, capsys, f"samples={copy}")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_hash_takes_is_refused(built: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    with pytest.raises(SystemExit):
        run(built, f"--seed={seed}")
    assert "from 0 to 2^63 - 1" in capsys.readouterr().err


def test_at_least_one_row_is_drawn(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(built, "--rows", "0")
    assert "at least 1" in capsys.readouterr().err
