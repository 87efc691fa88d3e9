"""Nights on a small simulated world: from logs to the alias; killed at any moment they come to the same, finished ones do nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml

from mian.contract import Contract, Publication, read_contract
from mian.promotion.alias import champion_version
from mian.scoring.servable_files import read_description

ROOT = Path(__file__).resolve().parents[2]
#: More of them take longer and say more: MIAN_KILLS=10.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
SEED = int(os.environ.get("MIAN_SEED", "0"))
SECONDS = 900
FIRST, SECOND = "2026-01-16", "2026-01-17"
WORLD = [
    "logs=data/logs",
    "samples=data/samples",
    "simulate.impressions=24000",
    "simulate.first_day=2025-12-20",
    "simulate.last_day=2026-01-18",
    "history.days=10",
    "history.length=10",
]
NIGHTLY = {
    "data": "data.yaml",
    "train": "train.yaml",
    "promotion": "promotion.yaml",
    "output": "nights",
    "first_day": "2026-01-01",
    "test_days": 3,
    "processes": 2,
    "spark_submit": ["spark-submit", "--driver-memory", "1g", "--conf", "spark.sql.shuffle.partitions=2"],
}

pytestmark = [pytest.mark.spark, pytest.mark.ranks, pytest.mark.long]


class Workplace:
    """A folder with logs, configurations and a tracking store; nights are processes that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | {
            "PYTHONPATH": str(ROOT),
            "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }

    def make(self) -> None:
        data = yaml.safe_load((ROOT / "conf" / "data" / "demo.yaml").read_text())
        for value in WORLD:
            key, _, text = value.partition("=")
            *above, last = key.split(".")
            place = data
            for part in above:
                place = place[part]
            place[last] = yaml.safe_load(text)
        data["splits"] = {"train": {"first": "2026-01-01", "last": "2026-01-02"}}
        train = {
            "samples": "data/samples",
            "output": "unused",
            "model": {"name": "mian", "options": {"embedding_dim": 8, "heads": 2, "mlp": [16, 8], "global_dim": 16}},
            "batch_size": 64,
            "epochs": 2,
            "threads": 1,
            "optimizer": {"learning_rate": 4e-3},
        }
        promotion = {
            "samples": "data/samples",
            "days": {"rows": 500, "positives": 20},
            "comparison": {"logloss_margin": 0.05, "auc_margin": 0.1, "confidence": 0.6},
            "calibration": {"lowest": 0.3, "highest": 3.0},
            "latency": None,
        }
        for name, values in {"data": data, "train": train, "promotion": promotion, "nightly": NIGHTLY}.items():
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
        simulate = ["spark-submit", str(ROOT / "jobs" / "simulate_logs.py"), "--config", "data.yaml"]
        subprocess.run(simulate, cwd=self.folder, env=self.environment, check=True, capture_output=True, timeout=SECONDS)

    def command(self, day: str) -> list[str]:
        return [sys.executable, str(ROOT / "jobs" / "nightly.py"), "--day", day, "--config", "nightly.yaml"]

    def night(self, day: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(day), cwd=self.folder, env=self.environment, check=False, capture_output=True, text=True, timeout=SECONDS
        )
        return done.returncode, done.stdout + done.stderr

    def killed_night(self, day: str, seconds: float) -> None:
        """Start a night, and kill it with all that it started."""
        process = psutil.Popen(
            self.command(day), cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(seconds)
        except psutil.TimeoutExpired:
            started = [process, *process.children(recursive=True)]
            for each in started:
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(started, 30)

    def result(self, day: str) -> dict[str, Any]:
        """What a night came to, but for what says when it was."""
        night = self.folder / "nights" / f"night={day}"
        marks = {path.name: json.loads(path.read_text())["result"] for path in sorted((night / "marks").iterdir())}
        weights, evaluated = marks["3-train.json"]["weights"], marks["5-evaluate.json"]
        client = mlflow.MlflowClient(self.environment["MLFLOW_TRACKING_URI"])
        contract = read_contract(str(self.folder / "data" / "samples"))
        return {
            "contract": unnumbered(contract),
            "weights": weights,
            "metrics": evaluated,
            "alias": champion_version(client, "mian", "champion"),
            "versions": len(client.search_model_versions("name = 'mian'")),
            "outcome": marks["6-promote.json"]["outcome"],
        }


def unnumbered(contract: Contract) -> str:
    """The contract without the numbers of its publications."""
    return contract.model_copy(update={"publication": Publication()}).to_json()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("nights") / "work")
    place.folder.mkdir()
    place.make()
    return place


@pytest.fixture(scope="module")
def first_night(workplace: Workplace) -> Path:
    """All that there is after the first night, to begin with again."""
    code, said = workplace.night(FIRST)
    assert code == 0, said
    return Path(shutil.copytree(workplace.folder, workplace.folder.with_name("after the first"), symlinks=True))


@pytest.fixture(scope="module")
def undisturbed(workplace: Workplace, first_night: Path) -> Iterator[tuple[dict[str, Any], float]]:
    """The second night, and how long it took."""
    began = time.monotonic()
    code, said = workplace.night(SECOND)
    assert code in (0, 2), said
    yield workplace.result(SECOND), time.monotonic() - began


def test_the_second_night_begins_with_the_first_ones_model_on_the_day_since(
    workplace: Workplace, undisturbed: tuple[dict[str, Any], float]
) -> None:
    (model,) = (workplace.folder / "nights" / f"night={SECOND}" / "models").glob("mian-*")
    lineage = read_description(model).lineage
    assert lineage is not None
    assert lineage.parent is not None
    assert lineage.parent.source == "mian/1"
    assert [str(day.day) for day in lineage.days if day.use == "train"] == ["2026-01-12"]
    assert lineage.audit == "clean"
    found, _ = undisturbed
    assert found["versions"] == 2
    assert found["alias"] == ("2" if found["outcome"] == "promoted" else "1")


def test_a_finished_night_does_nothing(workplace: Workplace, undisturbed: tuple[dict[str, Any], float]) -> None:
    files = {path: path.stat().st_mtime_ns for path in workplace.folder.rglob("*") if path.is_file()}
    code, said = workplace.night(SECOND)
    assert code == (0 if undisturbed[0]["outcome"] == "promoted" else 2), said
    changed = {str(path.relative_to(workplace.folder)) for path, time_ in files.items() if path.stat().st_mtime_ns != time_}
    assert not {name for name in changed if not name.startswith("mlflow.db")}
    assert workplace.result(SECOND) == undisturbed[0]


@pytest.mark.parametrize("number", range(KILLS))
def test_a_night_that_was_killed_comes_to_the_same(
    workplace: Workplace, first_night: Path, undisturbed: tuple[dict[str, Any], float], number: int
) -> None:
    right, seconds = undisturbed
    shutil.rmtree(workplace.folder)
    shutil.copytree(first_night, workplace.folder, symlinks=True)
    moment = random.Random(1000 * SEED + number).uniform(2.0, seconds)
    workplace.killed_night(SECOND, moment)
    code, said = workplace.night(SECOND)
    assert code in (0, 2), f"killed after {moment:.1f} s: {said}"
    assert workplace.result(SECOND) == right, f"killed after {moment:.1f} s"
