"""Nights on a world that drifts, and what they are compared with, in one folder; the benchmark is ``drifting_nights.py``."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow

from jobs.configuration import load_config
from mian.config import TrainConfig
from mian.contract import CONTRACT_FILE, Split, read_contract
from mian.nightly.plan import Plan, read_plan
from mian.nightly.settings import NightlyConfig
from mian.nightly.steps import Mark, Night, environment, python_job
from mian.promotion.alias import champion_version
from mian.promotion.decision import Decision
from mian.promotion.run import ARTIFACT_TAG
from mian.promotion.settings import PromotionConfig

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "conf" / "nightly" / "drift.yaml"
DAY = dt.timedelta(days=1)
STEPS = ("build", "audit", "train", "register", "evaluate", "promote")


@dataclass(frozen=True)
class Finished:
    """A night that is done.

    Attributes:
        plan: Its days.
        marks: Of its steps, by name.
        serving: The number of the version that serves after it.
    """

    plan: Plan
    marks: Mapping[str, Mark]
    serving: str

    @property
    def version(self) -> str:
        """The number of its own version."""
        return str(self.marks["register"].result["version"])

    @property
    def model(self) -> Path:
        """The folder of its own version."""
        return Path(self.marks["train"].result["model"])

    @property
    def seconds(self) -> dict[str, float]:
        """By step, and of all."""
        steps = {name: mark.seconds for name, mark in self.marks.items()}
        return steps | {"all": round(sum(steps.values()), 1)}


class World:
    """Logs, samples, nights, trainings and a registry in one folder.

    Args:
        folder: An absolute path.
        impressions: Of the logs.
        overrides: ``KEY=VALUE`` of the nights' configuration.
    """

    def __init__(self, folder: Path, impressions: int, overrides: Sequence[str]) -> None:
        self._folder = folder
        self._overrides = [*overrides, f"output={folder / 'nights'}"]
        self._nightly = load_config(NightlyConfig, str(CONFIG), self._overrides)
        self._training = self._nightly.train
        self._name = load_config(TrainConfig, self._training).tracking.registered_name or ""
        self._alias = load_config(PromotionConfig, self._nightly.promotion).alias
        self.logs, self.samples = folder / "logs", folder / "samples"
        self._places = [f"logs={self.logs}", f"samples={self.samples}"]
        self._impressions = impressions
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        self._client = mlflow.MlflowClient()
        self._serving: str | None = None

    def simulate(self) -> None:
        """Write the logs unless they are there."""
        self._spark("simulate_logs", *self._places, f"simulate.impressions={self._impressions}")

    def night(self, day: dt.date) -> Finished:
        """Do a night, or what is left of it; nights are asked for in the order of time."""
        values = ["--config", str(CONFIG), *self._overrides, "--data", *self._places]
        _run(python_job("nightly", "--day", str(day), *values), good=(0, 2))
        folder = Path(self._nightly.output) / f"night={day}"
        plan = read_plan(folder)
        assert plan is not None
        marks = [Mark.model_validate_json(path.read_bytes()) for path in (folder / "marks").glob("*.json")]
        found = Finished(plan, {mark.step: mark for mark in sorted(marks, key=lambda mark: STEPS.index(mark.step))}, "")
        if self._serving is None and self._champion() is None:
            self._client.set_registered_model_alias(self._name, self._alias, found.version)
        if self._serving is None or found.marks["promote"].result["outcome"] == "promoted":
            self._serving = found.version
        return Finished(found.plan, found.marks, self._serving)

    def retrained(self, night: Finished) -> tuple[Path, float]:
        """Train with new weights on the days of a night, unless that is done: the model's folder, and the seconds.

        Raises:
            RuntimeError: The samples have other splits by now.
        """
        folder = self._folder / "retrained" / f"night={night.plan.day}"
        training = Night(folder, night.plan.model_dump_json())

        def train() -> dict[str, Any]:
            spans = {name: getattr(night.plan, name) for name in ("train", "validation", "test")}
            if read_contract(str(self.samples)).splits != spans:
                raise RuntimeError(f"{self.samples} is past the night of {night.plan.day}; do all again in another folder")
            values = {
                "samples": self.samples,
                "output": folder / "models",
                "test_split": "test",
                "tracking.registered_name": "null",
            }
            command = python_job("train", "--config", self._training, *(f"{key}={value}" for key, value in values.items()))
            ranks = self._nightly.processes
            training.job("train", [*(["horovodrun", "-np", str(ranks), "--gloo"] if ranks > 1 else []), *command])
            (model,) = (path.parent for path in (folder / "models").glob("[!.]*/model.json"))
            return {"model": str(model)}

        return Path(training.step("train", train)["model"]), training.marks[0].seconds

    def judged(self, last: dt.date) -> Path:
        """The folder of samples that reach to a day at least; those of the nights are copied, and stay as they are."""
        folder = self._folder / f"judged={last}"
        if not (folder / CONTRACT_FILE).exists() or _last_day(folder) < last:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.samples, folder)
            splits = dict(read_contract(str(folder)).splits)
            splits["test"] = Split(first=splits["test"].first, last=max(splits["test"].last, last))
            spans = [f"splits.{name}.{end}={getattr(split, end)}" for name, split in splits.items() for end in ("first", "last")]
            days = ["--from", str(splits["train"].first), "--to", str(splits["test"].last)]
            self._spark("build_samples", f"logs={self.logs}", f"samples={folder}", *spans, "--extend-vocabularies", *days)
        return folder

    def _champion(self) -> str | None:
        """The version that the registry says serves."""
        return champion_version(self._client, self._name, self._alias)

    def decision(self, night: Finished) -> Decision:
        """What the gates said of a night's version."""
        tags = self._client.get_model_version(self._name, night.version).tags
        return Decision.model_validate_json(Path(mlflow.artifacts.download_artifacts(tags[ARTIFACT_TAG])).read_bytes())

    def _spark(self, job: str, *arguments: str) -> None:
        command = python_job(job, "--config", self._nightly.data, *arguments)
        _run([*self._nightly.spark_submit, *command[1:]])


def _last_day(samples: Path) -> dt.date:
    return max(day.day for day in read_contract(str(samples)).days)


def _run(command: Sequence[str], good: Sequence[int] = (0,)) -> None:
    """Run a job; what it says goes to standard error."""
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=sys.stderr, check=False)
    if done.returncode not in good:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(command)}")
