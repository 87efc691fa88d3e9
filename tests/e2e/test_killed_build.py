"""A build that is killed at any moment leaves a data set that the next build finishes as if nothing had been."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from mian.contract import read_contract
from tests.support.published import files
from tests.support.small_logs import DAYS, config, write_logs

ROOT = Path(__file__).resolve().parents[2]
#: More of them take longer and say more: MIAN_KILLS=20.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
SECONDS = 300

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYSPARK_SUBMIT_ARGS"} | {
    "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
    "SPARK_LOCAL_IP": "127.0.0.1",
}

pytestmark = [pytest.mark.spark, pytest.mark.long]


def command(settings: Path, samples: Path) -> list[str]:
    job = ["jobs/build_samples.py", "--config", str(settings), f"samples={samples}"]
    return ["spark-submit", "--conf", "spark.sql.shuffle.partitions=2", *job]


def build(settings: Path, samples: Path) -> float:
    start = time.monotonic()
    subprocess.run(command(settings, samples), cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True, timeout=SECONDS)
    return time.monotonic() - start


def build_and_kill(settings: Path, samples: Path, after: float) -> bool:
    """Start a build, and kill it with all its processes; whether it was still at work."""
    with subprocess.Popen(
        command(settings, samples),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            process.wait(timeout=after)
            return False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days, published three at a time."""
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder, days=10)
    values = config(folder).model_dump(mode="json", by_alias=True, exclude_unset=True) | {"rows_per_pass": 180}
    values["splits"]["test"]["last"] = str(DAYS[0].replace(day=10))
    path = folder / "killed.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_the_next_build_finishes_what_a_killed_one_began(settings: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    took = build(settings, whole)
    expected = files(whole)
    contract_of_whole = read_contract(str(whole))
    assert len(contract_of_whole.days) == 10
    draw = random.Random(0)
    published = []
    for attempt in range(KILLS):
        samples = tmp_path / f"killed-{attempt}"
        killed = build_and_kill(settings, samples, draw.uniform(0.1, 1.0) * took)
        there = (samples / "contract.json").exists()
        published.append(len(read_contract(str(samples)).days) if there else 0)
        if there:  # what is published is whole, whenever the build was killed
            contract = read_contract(str(samples))
            for day in contract.days:
                for file in day.named_files:
                    assert hashlib.sha256((samples / file.path).read_bytes()).hexdigest() == file.sha256
        build(settings, samples)
        unpublished = {"publication": None}
        assert read_contract(str(samples)).model_copy(update=unpublished) == contract_of_whole.model_copy(update=unpublished)
        assert not (samples / "_contracts" / "draft.json").exists()
        assert files(samples) == expected, f"attempt {attempt}, killed {killed}, {published[-1]} days published then"
        shutil.rmtree(samples)
    print(f"days published when killed: {published}, a whole build took {took:.0f} s")
