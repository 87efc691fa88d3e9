"""What a job says under ``spark-submit``: results on standard output, errors and progress on standard error; in any locale."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.small_logs import DAYS, config, write_logs

pytestmark = [pytest.mark.spark]

ROOT = Path(__file__).resolve().parents[2]


def submit(folder: Path, *arguments: object, conf: Path = ROOT / "conf" / "spark") -> subprocess.CompletedProcess[str]:
    """Run a build in a locale that knows nothing but ASCII."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYSPARK_SUBMIT_ARGS", "LANG", "LC_CTYPE")}
    environment |= {"SPARK_CONF_DIR": str(conf), "SPARK_LOCAL_IP": "127.0.0.1", "LC_ALL": "C"}
    command = ["spark-submit", "--master", "local[1]", f"{ROOT}/jobs/build_samples.py", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with characters beyond ASCII, with logs of a day and their configuration."""
    folder = tmp_path_factory.mktemp("shop") / "größe"
    folder.mkdir()
    write_logs(folder, per_day=10, days=1)
    made = config(folder, splits={"train": {"first": DAYS[0], "last": DAYS[0]}})
    (folder / "data.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    return folder


def test_a_folder_beyond_ascii_is_read_and_filled_in_a_locale_of_ascii(shop: Path) -> None:
    done = submit(shop, "--config", "data.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{shop}/samples: 1 days built")
    assert "building 1 days" in done.stderr
    assert (shop / "samples" / "contract.json").is_file()


def test_an_error_is_one_line_of_standard_error_and_standard_output_stays_empty(shop: Path) -> None:
    done = submit(shop, "--config", "data.yaml", f"log.clicks.path={shop}/none #1")
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert sentence.startswith(f"error: log.clicks: no such path: {shop}/none #1; correct log.clicks.path")


def test_where_java_knows_nothing_but_ascii_the_folder_is_refused(shop: Path, tmp_path: Path) -> None:
    shutil.copy(shop / "data.yaml", tmp_path)
    done = submit(tmp_path, "--config", "data.yaml", "samples=elsewhere", conf=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert sentence.startswith("error: log.impressions.path: Java cannot reach")
    assert "LC_ALL=C.UTF-8" in sentence
