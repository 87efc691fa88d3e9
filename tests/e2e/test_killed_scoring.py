"""A scoring run that is killed at any moment leaves whole days, and the next run completes them to the same bytes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.candidate_logs import DAYS, build_shop, write_candidates, write_pages
from tests.support.published import files

ROOT = Path(__file__).resolve().parents[2]
#: More of them take longer and say more: MIAN_KILLS=10.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
SEED = int(os.environ.get("MIAN_SEED", "0"))
SECONDS = 300

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYSPARK_SUBMIT_ARGS"} | {
    "PYTHONPATH": str(ROOT),
    "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
    "SPARK_LOCAL_IP": "127.0.0.1",
}

MOMENT = ("--scored-at", "2026-03-07T04:00:00Z")

pytestmark = [pytest.mark.spark, pytest.mark.long]


@pytest.fixture(scope="module")
def command(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Scores four days, about two at a time; the output is to be added."""
    folder = tmp_path_factory.mktemp("shop")
    write_pages(folder, pages=15)
    write_candidates(folder, DAYS[2:])
    shop = build_shop(spark, folder)
    settings = shop.config.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"rows_per_pass": 110}
    (folder / "data.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    job = ["jobs/score.py", "--model", str(shop.model), "--config", str(folder / "data.yaml")]
    launcher = ["spark-submit", "--conf", "spark.sql.shuffle.partitions=2"]
    return [*launcher, *job, "--impressions", str(shop.candidates)]


def run(command: list[str], output: Path, *more: str) -> float:
    start = time.monotonic()
    whole = [*command, "--output", str(output), *more]
    subprocess.run(whole, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True, timeout=SECONDS)
    return time.monotonic() - start


def run_and_kill(command: list[str], output: Path, when: Callable[[float], bool]) -> bool:
    """Start a run, and kill it with all its processes; whether it was still at work.

    Args:
        command: what is run.
        output: where to.
        when: says of the seconds since the start whether the moment has come.
    """
    start = time.monotonic()
    with subprocess.Popen(
        [*command, "--output", str(output), *MOMENT],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and time.monotonic() - start < SECONDS:
            if when(time.monotonic() - start):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.002)
        return False


def assert_whole_days(output: Path) -> int:
    """What readers see is whole days, and all that the manifest names is there; how many days it names."""
    manifest = output / "_manifest.json"
    days = json.loads(manifest.read_text())["days"] if manifest.exists() else []
    for day in days:
        for file in day["files"]:
            assert hashlib.sha256((output / file["path"]).read_bytes()).hexdigest() == file["sha256"]
    return len(days)


def killed_and_completed(command: list[str], output: Path, when: Callable[[float], bool], whole: dict[str, str]) -> str:
    """Kill a run and let another one complete it; how far it was when it was killed.

    Args:
        command: what is run.
        output: where to.
        when: says of the seconds since the start whether the moment has come.
        whole: the checksums of the files of a run that nobody killed.
    """
    killed = run_and_kill(command, output, when)
    published = assert_whole_days(output)
    visible = {name: sha256 for name, sha256 in files(output).items() if not name.startswith("_")} if output.exists() else {}
    seen_days = {name.partition("/")[0] for name in visible}
    assert visible == {name: sha256 for name, sha256 in whole.items() if name.partition("/")[0] in seen_days}, "days are whole"
    # the moment at which the first run began counts, where it had begun to score
    run(command, output, *([] if published or (output / "_runs").exists() else MOMENT))
    assert files(output) == whole
    shutil.rmtree(output)
    return f"{published} days" if killed else "ended"


def around_a_publication(output: Path, day: dt.date, draw: random.Random) -> Callable[[float], bool]:
    """The moment when a day appears, or up to 0.3 s later."""
    folder, late = output / f"day={day}", draw.uniform(0.0, 0.3)
    seen: list[float] = []

    def when(seconds: float) -> bool:
        if not seen and folder.exists():
            seen.append(seconds)
        return bool(seen) and seconds - seen[0] >= late

    return when


def test_the_next_run_completes_what_a_killed_one_began(command: list[str], tmp_path: Path) -> None:
    took = run(command, tmp_path / "whole", *MOMENT)
    whole = files(tmp_path / "whole")
    assert len(list((tmp_path / "whole").glob("day=*"))) == len(DAYS) - 2
    draw = random.Random(SEED)
    found = []
    for attempt in range(KILLS):
        output, after = tmp_path / f"killed-{attempt}", draw.uniform(0.1, 1.0) * took
        day = DAYS[2 + attempt // 2 % 4]
        when = (lambda seconds, after=after: seconds > after) if attempt % 2 else around_a_publication(output, day, draw)
        found.append(killed_and_completed(command, output, when, whole))
    print(f"published when killed: {found}, a whole run took {took:.0f} s")
