"""What the job says and passes on; what a build does is in tests/pipeline."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import build_samples
from mian.contract import read_contract
from pipeline.dataset.lock import DatasetLock
from pipeline.io.files import LocalFiles
from tests.support.small_logs import DAYS, config, write_logs

pytestmark = pytest.mark.spark

ROOT = Path(__file__).resolve().parents[2]
SPLITS = {name: {"first": str(day), "last": str(day)} for name, day in (("train", DAYS[0]), ("test", DAYS[1]))}


@pytest.fixture(autouse=True)
def _shared_session(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends its session, which here is that of all tests."""
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of the small logs: one to train on, one to test."""
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder, per_day=20)
    for path in folder.glob("*/day=*"):
        if path.name > f"day={DAYS[1]}":
            shutil.rmtree(path)
    return folder


@pytest.fixture(scope="module")
def data(logs: Path) -> Path:
    """The configuration of both days."""
    settings = config(logs, splits=SPLITS, samples=str(logs / "samples"))
    (logs / "data.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    return logs / "data.yaml"


@pytest.fixture(scope="module")
def first_day(spark: SparkSession, data: Path) -> Path:
    """Samples of the first day; tests take copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SparkSession, "stop", lambda session: None)
        assert build_samples.main(["--config", str(data), "--to", str(DAYS[0])]) == 0
    return data.parent / "samples"


@pytest.fixture
def samples(first_day: Path, tmp_path: Path) -> Path:
    shutil.copytree(first_day, tmp_path / "samples")
    return tmp_path / "samples"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def error(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    return sentence


@contextmanager
def held(samples: Path) -> Iterator[None]:
    """While a build in this process works."""
    with DatasetLock(LocalFiles(), str(samples)):
        yield


def submit(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the job as its users do."""
    environment = os.environ | {"SPARK_CONF_DIR": str(ROOT / "conf" / "spark"), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment.pop("PYSPARK_SUBMIT_ARGS", None)
    command = ["spark-submit", "--master", "local[1]", f"{ROOT}/jobs/build_samples.py", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_plan_is_printed_and_nothing_is_built(data: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(samples)
    assert build_samples.main(["--config", str(data), "--plan", f"samples={samples}"]) == 0
    kept, built, total = capsys.readouterr().out.splitlines()
    assert kept.split() == [str(DAYS[0]), "keep", "20", "samples"]
    assert built.split() == [str(DAYS[1]), "build", "20", "samples", "missing"]
    assert total == f"{samples}: 1 of 2 days would be built, about 20 samples"
    assert files(samples) == before


def test_a_plan_makes_no_folder(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_samples.main(["--config", str(data), "--plan", "--from", str(DAYS[1]), f"samples={tmp_path}/none"]) == 0
    assert "1 of 1 days would be built" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("day", ["2026-02-30", "yesterday", "01.03.2026"])
def test_a_day_that_is_none_is_refused_with_an_example_of_one(data: Path, day: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_samples.main(["--config", str(data), "--from", day])
    assert f"argument --from: {day!r} is not a day; write it as in 2026-01-31" in capsys.readouterr().err


def test_a_last_day_before_the_first_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_samples.main(["--config", str(data), "--from", str(DAYS[1]), "--to", str(DAYS[0])]) == 1
    assert error(capsys) == f"error: --to {DAYS[0]} is before --from {DAYS[1]}"


@pytest.mark.parametrize(
    ("override", "unknown", "near"),
    [
        ("log.impressions.pth=elsewhere", "log.impressions.pth", "path"),
        ("quality.max_duplicate=0.5", "quality.max_duplicate", "max_duplicates"),
        ("vocabulary.item_id.min_count=3", "vocabulary", "vocabularies"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(
    data: Path, override: str, unknown: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_samples.main(["--config", str(data), override]) == 1
    assert f"data.yaml: unknown key {unknown!r}; did you mean {near!r}?" in error(capsys)


def test_a_folder_with_another_s_contract_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "contract.json").write_text(json.dumps({"format": "mian-samples", "version": 99}))
    assert build_samples.main(["--config", str(data), f"samples={tmp_path}"]) == 1
    assert f"{tmp_path}/contract.json: contract of version 99" in error(capsys)
    assert files(tmp_path) == {"contract.json"}


def test_vocabularies_are_extended_where_it_is_said(data: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = [f"splits.train.last={DAYS[1]}", f"splits.test={{first: {DAYS[2]}, last: {DAYS[2]}}}", f"samples={samples}"]
    arguments = ["--config", str(data), "--from", str(DAYS[1]), "--to", str(DAYS[1]), *longer]
    before = read_contract(str(samples))
    assert build_samples.main([*arguments, "--extend-vocabularies"]) == 0
    after = read_contract(str(samples))
    assert (before.vocabulary_version, after.vocabulary_version) == (1, 2)
    assert [day.vocabulary_version for day in after.days] == [1, 2]
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"{samples}: 1 days built, 0 finished before and unchanged"
    assert f"item_id {after.vocabulary('item_id').size}" in printed.splitlines()[-1]


def test_a_data_set_that_another_build_works_on_is_left_alone(
    data: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(samples):
        before = files(samples)
        assert build_samples.main(["--config", str(data), f"samples={samples}"]) == 1
        assert f"process {os.getpid()} on {socket.gethostname()} builds this data set now; wait until it has ended" in error(
            capsys
        )
        assert files(samples) == before


def test_a_build_waits_for_another_as_long_as_it_is_told_to(
    data: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = DatasetLock(LocalFiles(), str(samples))
    other.__enter__()
    release = threading.Timer(2.0, lambda: other.__exit__(None, None, None))
    release.start()
    day = str(DAYS[0])
    assert build_samples.main(["--config", str(data), "--to", day, "--wait", "60", f"samples={samples}"]) == 0
    release.join()
    assert "0 days built, 1 finished before and unchanged" in capsys.readouterr().out


def test_a_second_process_names_the_first(data: Path, samples: Path) -> None:
    with held(samples):
        before = files(samples)
        done = submit(samples.parent, "--config", data, f"samples={samples}")
        assert done.returncode == 1
        printed = done.stdout + done.stderr
        (sentence,) = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert sentence.startswith(f"error: {samples}/_locks/")
        assert f"process {os.getpid()} on {socket.gethostname()}" in sentence
        assert "Traceback" not in printed
        assert files(samples) == before


def test_generations_are_listed_and_an_earlier_one_is_published_again(
    data: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_contract(str(samples))
    arguments = ["--config", str(data), "--to", str(DAYS[0]), f"samples={samples}"]
    assert build_samples.main([*arguments, "seed=1"]) == 0
    after = read_contract(str(samples))
    assert after.publication.generation == before.publication.generation + 1
    capsys.readouterr()
    assert build_samples.main([*arguments, "--generations"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["generation", "revision", "days", "samples", "vocabularies"]
    assert [first.split()[:4], second.split()[:4]] == [["1", "1", "1", "20"], ["2", "2", "1", "20"]]
    assert (first.split()[-1], second.split()[-1]) == (str(DAYS[0]), "published")

    assert build_samples.main([*arguments, "--rollback"]) == 0
    assert f"{samples}: generation 1 is published again, with the days {DAYS[0]}" in capsys.readouterr().out
    again = read_contract(str(samples))
    assert (again.days, again.vocabularies) == (before.days, before.vocabularies)
    assert again.publication.revision == after.publication.revision + 1
    assert build_samples.main([*arguments, "--rollback", "--generation", "7"]) == 1
    assert "there is not generation 7 to go back to; the generations there are 2, 1 (published)" in error(capsys)
    # the first configuration goes on as if nothing had been
    assert build_samples.main(arguments) == 0
    assert "0 days built, 1 finished before and unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["removed", "cut", "changed"])
def test_a_day_whose_file_was_damaged_is_built_again(
    data: Path, samples: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = read_contract(str(samples))
    path = samples / contract.days[0].files[0].path
    content = path.read_bytes()
    path.unlink()
    if how != "removed":
        path.write_bytes(content[:-5] if how == "cut" else content[:9] + bytes([content[9] ^ 1]) + content[10:])
    # also where another day is asked for
    arguments = ["--config", str(data), "--from", str(DAYS[1]), "--to", str(DAYS[1]), f"samples={samples}"]
    assert build_samples.main([*arguments, *(["--verify"] if how == "changed" else [])]) == 0
    assert "2 days built, 0 finished before" in capsys.readouterr().out
    assert path.read_bytes() == content


@pytest.mark.parametrize("place", ["impressions", "impressions/below", "."])
def test_samples_do_not_lie_among_the_logs(data: Path, logs: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(logs)
    assert build_samples.main(["--config", str(data), f"samples={logs / place}"]) == 1
    assert "log.impressions.path" in (sentence := error(capsys))
    assert "or one is inside the other; set samples to a folder apart from all logs" in sentence
    assert files(logs) == before


def test_a_folder_of_other_files_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {f"day={DAYS[0]}/part-0.parquet", "archive.tmp/precious.csv", "_staging/half"}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not ours")
    assert build_samples.main(["--config", str(data), f"samples={tmp_path}"]) == 1
    assert f"{tmp_path}: not empty, and holds no samples (archive.tmp, day={DAYS[0]})" in error(capsys)
    assert files(tmp_path) == names


def test_the_folder_of_another_data_set_is_refused(data: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(samples)
    assert build_samples.main(["--config", str(data), "name=other", f"samples={samples}"]) == 1
    assert f"{samples}: holds the data set 'small', and the configuration is of 'other'" in error(capsys)
    assert files(samples) == before


@pytest.mark.parametrize("more", [[], ["--rollback"]])
def test_a_place_that_cannot_be_written_is_one_error(
    data: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert build_samples.main(["--config", str(data), f"samples={tmp_path}/file/samples", *more]) == 1
    assert f"{tmp_path}/file/samples: cannot be written: " in error(capsys)
    assert files(tmp_path) == {"file"}


def test_a_lost_contract_comes_back(data: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (samples / "contract.json").read_bytes()
    (samples / "contract.json").unlink()
    assert build_samples.main(["--config", str(data), "--to", str(DAYS[0]), f"samples={samples}"]) == 0
    assert "0 days built, 1 finished before and unchanged" in capsys.readouterr().out
    assert (samples / "contract.json").read_bytes() == before


def test_a_data_set_of_an_earlier_release_is_kept_beside_the_new_generation(
    data: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(samples / "_contracts")
    shutil.rmtree(samples / "_locks")
    document = json.loads((samples / "contract.json").read_text())
    for added in ("publication", "samples_version", "settings"):
        del document[added]
    (span,) = document["vocabulary_days"]
    document |= {"version": 2, "vocabulary_days": span}
    for vocabulary in document["vocabularies"]:
        del vocabulary["bytes"]
    (samples / "contract.json").write_text(json.dumps(document))
    old = read_contract(str(samples))
    assert build_samples.main(["--config", str(data), "--to", str(DAYS[0]), f"samples={samples}"]) == 0
    assert "1 days built" in capsys.readouterr().out
    assert read_contract(str(samples)).publication.generation == 1
    assert all((samples / path).exists() for path in old.named_files)
    assert build_samples.main(["--config", str(data), f"samples={samples}", "--rollback"]) == 0
    assert read_contract(str(samples)).days == old.days
