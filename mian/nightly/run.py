"""A night from the logs to the alias."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from mian.checkpoint.training_lock import TrainingLock
from mian.config import TrainConfig
from mian.contract import CONTRACT_FILE, read_contract
from mian.contract.audit_verdict import audit_state
from mian.contract.lineage import Lineage
from mian.nightly.plan import NightError, Plan, make_plan, read_plan, write_plan
from mian.nightly.settings import NightlyConfig
from mian.nightly.steps import Night, python_job, text_override
from mian.promotion.alias import champion_version
from mian.promotion.settings import PromotionConfig
from mian.scoring.servable_files import read_description
from mian.tracking.mlflow_store import check_store, find_run
from mian.tracking.records import read_metrics, read_training
from mian.tracking.registry import fetch_model

log = logging.getLogger(__name__)

REFUSED = 2


@dataclass(frozen=True)
class Configurations:
    """The configurations of a night and what it takes of them.

    Attributes:
        nightly: The settings of nights.
        train: Those of the training; ``samples`` and ``output`` are replaced.
        promotion: Those of the promotion; ``samples`` is replaced.
        samples: The folder of the samples, a local one.
        settings: Fingerprint of all, see :func:`mian.nightly.plan.settings_fingerprint`.
        overrides: ``KEY=VALUE`` of the data configuration.
    """

    nightly: NightlyConfig
    train: TrainConfig
    promotion: PromotionConfig
    samples: str
    settings: str
    overrides: Sequence[str]


def run_night(day: dt.date, configurations: Configurations) -> tuple[int, str]:
    """Do all steps of a night that are not done yet.

    Args:
        day: The last day of which there are logs.
        configurations: What the steps go by.

    Returns:
        0 where the new version serves, 2 where it was refused; and what was done, a line a step.

    Raises:
        AlreadyRunningError: Another process is at this night.
        NightError: A step failed; the steps before it are done.
        MlflowException, OSError, TrackingError: The registry does not answer.
    """
    nightly = configurations.nightly
    folder = Path(nightly.output) / f"night={day}"
    folder.mkdir(parents=True, exist_ok=True)
    with TrainingLock(folder.parent / f"night={day}.lock"):
        plan = read_plan(folder)
        if plan is None:
            champion, lineage = _champion(configurations)
            plan = make_plan(day, nightly, configurations.settings, champion, lineage)
            write_plan(folder, plan)
        elif plan.settings != configurations.settings:
            raise NightError(
                f"{folder}: the night was begun with another configuration; start it with that one, or remove the folder to begin it anew"
            )
        night = Night(folder, plan.model_dump_json())
        code = _Steps(night, plan, configurations).run()
        lines = [f"{mark.step:<9} {mark.seconds:7.1f} s  {_said(mark.result)}" for mark in night.marks]
        return code, "\n".join([_headline(plan, night.marks[-1].result), *lines])


class _Steps:
    def __init__(self, night: Night, plan: Plan, configurations: Configurations) -> None:
        self._night = night
        self._plan = plan
        self._all = configurations
        self._name = configurations.train.tracking.registered_name or ""
        if not self._name:
            raise NightError("tracking.registered_name of the training's configuration is null; name the registered model")

    def run(self) -> int:
        night = self._night
        night.step("build", self._build)
        night.step("audit", self._audit)
        kept = night.step("train", self._train)
        version = night.step("register", lambda: self._register(kept["model"]))
        night.step("evaluate", lambda: self._evaluate(version["version"]))
        promoted = night.step("promote", lambda: self._promote(version["version"]))
        return 0 if promoted["outcome"] == "promoted" else REFUSED

    def _spark(self, job: str, *arguments: str) -> list[str]:
        command = python_job(job, "--config", self._all.nightly.data, *self._all.overrides, *self._plan.overrides, *arguments)
        return [*self._all.nightly.spark_submit, *command[1:]]

    def _build(self) -> dict[str, Any]:
        span = ["--from", str(self._plan.train.first), "--to", str(self._plan.test.last)]
        self._night.job("build", self._spark("build_samples", "--extend-vocabularies", *span))
        document = (Path(self._all.samples) / CONTRACT_FILE).read_bytes()
        contract = read_contract(self._all.samples)
        days = [day for day in contract.days if day.day in self._plan.test]
        if not days or not all(day.final for day in days):
            raise NightError(
                f"build: the labels of {self._plan.test.first} to {self._plan.test.last} are not final; wait for their clicks, set "
                "log.complete_to, or raise label_delay_days"
            )
        rows = sum(day.rows for day in contract.days)
        return {"contract": hashlib.sha256(document).hexdigest(), "days": len(contract.days), "rows": rows}

    def _audit(self) -> dict[str, Any]:
        self._night.job("audit", self._spark("audit_samples"), good=(0, 1))
        contract, plan = read_contract(self._all.samples), self._plan
        used = [day for day in contract.days if day.day in plan.train or day.day in plan.validation or day.day in plan.test]
        states = {str(day.day): audit_state(self._all.samples, day.day, day.fingerprint) for day in used}
        bad = [day for day, state in states.items() if state != "clean"]
        if bad:
            what = "found something on" if "findings" in states.values() else "did not end for"
            raise NightError(f"audit: it {what} {', '.join(bad[:5])}; read {self._night.folder / 'logs' / 'audit.log'}")
        return {"clean_days": len(states)}

    def _train(self) -> dict[str, Any]:
        output = self._night.folder / "models"
        if (kept := _ended(output)) is None:
            nightly, plan = self._all.nightly, self._plan
            texts = {"samples": self._all.samples, "output": str(output), "test_split": "test"}
            others: dict[str, str] = {}
            if plan.champion is not None:
                texts["init_from"] = plan.champion
                others |= nightly.warm_overrides
            if plan.window_days is not None:
                others["train_window_days"] = str(plan.window_days)
            overrides = [
                *(text_override(key, text) for key, text in texts.items()),
                *(f"{key}={value}" for key, value in others.items()),
            ]
            command = python_job("train", "--config", nightly.train, *overrides)
            launcher = ["horovodrun", "-np", str(nightly.processes), "--gloo"] if nightly.processes > 1 else []
            self._night.job("train", [*launcher, *command])
            kept = _ended(output)
        if kept is None:
            raise NightError(
                f"train: no model with test metrics is in {output}; read {self._night.folder / 'logs' / 'train.log'}"
            )
        weights = hashlib.sha256((kept / "weights.pt").read_bytes()).hexdigest()
        return {"model": str(kept), "weights": weights, "begins_with": self._plan.champion or "nothing"}

    def _register(self, model: str) -> dict[str, Any]:
        """Training has registered it unless the store was away; the job does what is missing."""
        version = self._version(Path(model))
        if version is None:
            self._night.job("register", python_job("register", "--model", model))
            version = self._version(Path(model))
        if version is None:
            raise NightError(
                f"register: {model} is no version of {self._name}; read {self._night.folder / 'logs' / 'register.log'}"
            )
        return {"version": version}

    def _version(self, model: Path) -> str | None:
        """The newest version of the training's run."""
        tracking = self._all.train.tracking
        experiment = mlflow.get_experiment_by_name(tracking.experiment)
        run = None if experiment is None else find_run(experiment.experiment_id, read_training(model).training)
        if run is None:
            return None
        versions = mlflow.MlflowClient().search_model_versions(f"run_id = '{run.info.run_id}'")
        numbers = [int(version.version) for version in versions if version.name == self._name]
        return str(max(numbers)) if numbers else None

    def _evaluate(self, version: str) -> dict[str, Any]:
        table, page = self._night.folder / "evaluation.json", self._night.folder / "evaluation.html"
        arguments = ["--model", f"models:/{self._name}/{version}", "--samples", self._all.samples, "--json", str(table)]
        self._night.job("evaluate", python_job("evaluate", *arguments, "--report", str(page)))
        metrics = json.loads(table.read_text(encoding="utf-8"))["model"]
        return {name: metrics[name] for name in ("auc", "logloss", "calibration", "rows")}

    def _promote(self, version: str) -> dict[str, Any]:
        page = self._night.folder / "promotion.html"
        arguments = [
            "--model",
            self._name,
            "--candidate",
            version,
            "--config",
            self._all.nightly.promotion,
            "--report",
            str(page),
        ]
        code = self._night.job(
            "promote", python_job("promote", *arguments, text_override("samples", self._all.samples)), good=(0, REFUSED)
        )
        found = mlflow.MlflowClient().get_model_version(self._name, version).tags
        outcome = "promoted" if code == 0 else "refused"
        return {"outcome": outcome, "version": version, "reasons": found.get("mian.promotion.reasons", "none")}


def _champion(configurations: Configurations) -> tuple[str | None, Lineage | None]:
    """The version that serves, and its lineage."""
    name, alias = configurations.train.tracking.registered_name or "", configurations.promotion.alias
    check_store(mlflow.get_tracking_uri())
    try:
        version = champion_version(mlflow.MlflowClient(), name, alias)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        version = None
    if version is None:
        return None, None
    uri = f"models:/{name}/{version}"
    with tempfile.TemporaryDirectory() as copy:
        return uri, read_description(fetch_model(uri, copy).folder).lineage


def _ended(output: Path) -> Path | None:
    """The model of a training that scored its test split; nothing is left to train then."""
    for folder in sorted(output.glob("[!.]*-*")):
        if (folder / "metrics.json").exists() and read_metrics(folder).test is not None:
            return folder
    return None


def _headline(plan: Plan, result: dict[str, Any]) -> str:
    said = "was promoted" if result["outcome"] == "promoted" else f"was refused ({result['reasons']})"
    return f"night of {plan.day}: version {result['version']} {said}"


def _said(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items())
