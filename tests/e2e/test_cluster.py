"""The same command on a Spark standalone cluster: a master and two workers as processes of their own, and the library in a file."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from mian.contract import read_contract
from pipeline.build import build_samples
from pipeline.config import DataConfig
from tests.support.published import files
from tests.support.small_logs import DAYS, config, write_logs
from tests.support.standalone import python_without_project, standalone_cluster, submit

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.spark]


@dataclass(frozen=True)
class Built:
    """One data set, built on the cluster and in the local session of all tests; ``tasks``: how many each executor ended well."""

    on_cluster: Path
    locally: Path
    python: Path
    executors: list[set[str]]
    tasks: Counter[str]


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("cluster")
    python = python_without_project(folder / "python")
    package = subprocess.run(
        ["bash", f"{ROOT}/scripts/package.sh", f"{folder}/dist"], capture_output=True, text=True, timeout=120, check=True
    ).stdout.strip()
    write_logs(folder, per_day=120)
    # the logs are named by URLs, which Hadoop's file system API takes and nothing else does
    written = yaml.safe_dump(config(folder).model_dump(mode="json", by_alias=True, exclude_unset=True))
    (folder / "data.yaml").write_text(written.replace(f"{folder}/", f"file://{folder}/"))
    job = shutil.copy(ROOT / "jobs" / "build_samples.py", folder)
    (folder / "events").mkdir()

    (folder / "mounted").mkdir()
    settings = {
        # a mount table is a file system of Hadoop's alone: whatever wrote with Python's own would fail, or write beside it
        "spark.hadoop.fs.viewfs.mounttable.mian.link./data": f"file://{folder}/mounted",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{folder}/events",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }
    set_so = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    with standalone_cluster(folder / "spark", python) as cluster:
        size = ["--executor-memory", "600m", "--executor-cores", "1"]
        travels = ["--master", cluster.url, "--py-files", package, *size]
        there = [str(job), "--config", "data.yaml", "samples=viewfs://mian/data/samples"]
        assert f"{len(DAYS)} days built" in submit(folder, python, *travels, *set_so, *there)
        executors = cluster.executors()
    same = DataConfig.model_validate(yaml.safe_load((folder / "data.yaml").read_text()) | {"samples": str(folder / "samples")})
    build_samples(spark, same, DAYS[0], DAYS[-1])
    return Built(folder / "mounted" / "samples", folder / "samples", python, executors, _tasks(folder / "events"))


def _tasks(events: Path) -> Counter[str]:
    """How many tasks each executor ended well, from the application's event log."""
    (log,) = events.iterdir()
    ended = [event for event in map(json.loads, log.read_text().splitlines()) if event["Event"] == "SparkListenerTaskEnd"]
    return Counter(event["Task Info"]["Executor ID"] for event in ended if event["Task End Reason"]["Reason"] == "Success")


def test_the_cluster_has_the_library_from_the_file_alone(built: Built) -> None:
    command = [str(built.python), "-c", "import pyarrow, pydantic, pyspark, pipeline"]
    tried = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert "ModuleNotFoundError: No module named 'pipeline'" in tried.stderr


def test_both_workers_ran_tasks(built: Built) -> None:
    assert len(built.executors) == 2
    for numbers in built.executors:
        assert sum(built.tasks[number] for number in numbers) > 0
    assert set(built.tasks) == set.union(*built.executors)


def test_the_data_equal_those_of_local_mode(built: Built) -> None:
    on_cluster, locally = files(built.on_cluster), files(built.locally)
    assert sum(name.endswith(".parquet") for name in locally) > 2 * len(DAYS)
    assert on_cluster == locally
    contract = read_contract(str(built.on_cluster))
    assert [day.day for day in contract.days] == DAYS
    assert sum(day.rows for day in contract.days) == 120 * len(DAYS)
