"""One MLflow run a training; a tracking server that is not there costs the record, never the model."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import mlflow
import pandas as pd
from mlflow.entities import LifecycleStage, Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from mian.config import TrackingConfig
from mian.fingerprint import code_fingerprint
from mian.serving.log import log_servable
from pipeline.contract import CONTRACT_FILE, Contract

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes a second, and a training's other ranks do without

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
QUALITY_FILE = "samples_quality.csv"
ARTIFACTS = "mlartifacts"
FLUSH_SECONDS = 5.0

Outcome = Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]
"""``RUNNING``: it goes on elsewhere."""

#: What a tracking store raises when it is not there, or goes away.
STORE_ERRORS = (MlflowException, OSError, SQLAlchemyError)


def quality_table(contract: Contract) -> pd.DataFrame:
    """What was found out about the samples while they were built: a row a day and column.

    Columns: ``day``, ``rows``, ``positives``, ``quarantined``, ``final``, ``column``, ``unknown`` (share of unknown ids), ``drift``
    (population stability index against the training days). Days of earlier releases have no such facts and are left out.
    """
    rows = [
        {
            "day": day.day,
            "rows": day.rows,
            "positives": day.positives,
            "quarantined": sum(day.quality.quarantined.values()),
            "final": day.final,
            "column": column,
            "unknown": day.quality.unknown.get(column),
            "drift": drift,
        }
        for day in contract.days
        if day.quality is not None
        for column, drift in day.quality.drift.items()
    ]
    columns = ["day", "rows", "positives", "quarantined", "final", "column", "unknown", "drift"]
    return pd.DataFrame(rows, columns=columns)


class Tracker:
    """The record of a training; used on rank 0 alone.

    Every call goes through where the store answers. At the first that does not, the tracker says so once and from then on keeps
    silent: the training goes on.

    Args:
        config: where to.
        parent_run: id of the run that this one is nested in.
    """

    def __init__(self, config: TrackingConfig, parent_run: str | None = None) -> None:
        self._config = config
        self._parent_run = parent_run
        self._buffer: list[Metric] = []
        self._flushed = time.monotonic()
        self.run_id: str | None = None
        self.failure: str | None = None
        self.uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI

    def start(self, params: Mapping[str, Any], contract: Contract, samples: str, run_id: str | None = None) -> None:
        """Begin the run: every configuration value, the contract and its fingerprint, the code's version, system metrics.

        Args:
            params: the configuration.
            contract: of the samples.
            samples: where they are.
            run_id: of a run that is to go on; one that is gone from the store is begun anew.
        """

        def begin() -> None:
            mlflow.set_tracking_uri(self.uri)
            check_store(self.uri)
            if mlflow.get_experiment_by_name(self._config.experiment) is None:
                local = self.uri.startswith("sqlite:")
                location = pathlib.Path(ARTIFACTS).resolve().as_uri() if local else None
                mlflow.create_experiment(self._config.experiment, artifact_location=location)
            mlflow.set_experiment(self._config.experiment)
            mlflow.enable_system_metrics_logging()  # type: ignore[no-untyped-call]
            if run_id is not None and self._goes_on(run_id):
                self.run_id = run_id
                return
            nested = self._parent_run is not None
            started = mlflow.start_run(run_name=self._config.run_name, nested=nested, parent_run_id=self._parent_run)
            self.run_id = started.info.run_id
            mlflow.log_params(dict(flatten(params)))
            mlflow.set_tags(
                {
                    "mian.version": importlib.metadata.version("mian"),
                    "mian.code": code_fingerprint(),
                    "mian.samples": samples,
                    "mian.contract": contract.name,
                    "mian.contract.fields": contract.fields_fingerprint,
                    "mian.contract.vocabularies": contract.vocabulary_fingerprint,
                    "mian.contract.config": contract.config_fingerprint,
                    "mian.contract.code": contract.code_fingerprint,
                }
            )
            mlflow.log_text(contract.to_json(), CONTRACT_FILE)
            mlflow.log_text(quality_table(contract).to_csv(index=False), QUALITY_FILE)

        self._try(begin)

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Points of curves; they travel together every few seconds."""
        now = int(time.time() * 1000)
        self._buffer += [Metric(name, float(value), now, step) for name, value in metrics.items()]
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the points that wait."""
        points, self._buffer = self._buffer, []
        self._flushed = time.monotonic()
        if points:
            self._try(lambda: mlflow.MlflowClient().log_batch(self._run(), metrics=points))

    def figure(self, figure: Figure, name: str) -> None:
        """A plot, made without pyplot."""
        self._try(lambda: mlflow.log_figure(figure, name))

    def table(self, rows: pd.DataFrame, name: str) -> None:
        """A table, as CSV."""
        self._try(lambda: mlflow.log_text(rows.to_csv(index=False), name))

    def files(self, folder: pathlib.Path) -> None:
        """The files of a folder, if there is one, under the name of the folder above it."""
        if folder.exists():
            self._try(lambda: mlflow.log_artifacts(str(folder), folder.parent.name))

    def register(self, folder: str, example: pd.DataFrame) -> str | None:
        """Log the trained model, and register it where the configuration names it.

        Returns:
            Its URI, such as ``models:/mian/3``; None where the store does not answer.
        """
        uris: list[str] = []
        self._try(lambda: uris.append(register(folder, example, self._config)))
        return uris[0] if uris else None

    def end(self, outcome: Outcome) -> None:
        """End the run; also where the store has once failed: it may be back."""
        self.flush()
        if self.run_id is not None:
            try:
                mlflow.end_run(outcome)
            except STORE_ERRORS as error:
                self._give_up(error)

    def _goes_on(self, run_id: str) -> bool:
        try:
            run = mlflow.get_run(run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            return False
        mlflow.start_run(run_id=run_id, nested=self._parent_run is not None)
        return True

    def _run(self) -> str:
        assert self.run_id is not None, "the run was begun"
        return self.run_id

    def _try(self, call: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            call()
        except STORE_ERRORS as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            log.warning("the tracking store %s does not answer, training goes on without it (%s)", self.uri, self.failure)


def check_store(uri: str) -> None:
    """Look once whether a tracking store that is a database answers; MLflow itself would ask again for most of an hour.

    Raises:
        SQLAlchemyError: it does not.
        OSError: there cannot be a file of that name.
    """
    if uri.partition(":")[0].partition("+")[0] not in DATABASE_ENGINES:
        return
    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database:
        pathlib.Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def register(folder: str, example: pd.DataFrame, config: TrackingConfig) -> str:
    """Log a servable folder to the active run; with a registered name, as its next version, to which the alias then points.

    Returns:
        The model's URI.
    """
    info = log_servable(folder, example, config.registered_name)
    if config.registered_name is None:
        return str(info.model_uri)
    version = str(info.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(config.registered_name, config.alias, version)
    return f"models:/{config.registered_name}/{version}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as ``a.b.c``."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs
