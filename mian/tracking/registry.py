"""From a servable folder to a version in MLflow's registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelStatus, Run

from mian.config import TrackingConfig
from mian.serving.log import log_servable
from mian.tracking.facts import TRAINING_TAG

UPLOAD_BYTES_PER_SECOND = 1_000_000
"""A server that passes files on to its own storage answers when all of a file is there; slower than this is a failure."""
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def register(folder: str, training: str, example: pd.DataFrame, config: TrackingConfig, move_alias: bool) -> str:
    """Log a servable folder to the active run; with a registered name, as its next version. What the run has already is used again.

    Args:
        folder: the model.
        training: id of its training, which the logged model carries as tag; models of the run without it are left alone.
        example: see :func:`mian.serving.input_example`.
        config: the names.
        move_alias: whether the alias is to point to the version then.

    Returns:
        The model's URI.
    """
    run = mlflow.active_run()
    assert run is not None, "the run was begun"
    client = mlflow.MlflowClient()
    name = config.registered_name
    uri = _logged(client, run, training)
    if uri is None:
        with _time_for(Path(folder)):
            uri = str(log_servable(folder, example, tags={TRAINING_TAG: training}).model_uri)
    if name is None:
        return uri
    versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    version = next((str(version.version) for version in versions if (version.name, version.source) == (name, uri)), None)
    if version is None:
        version = str(mlflow.register_model(uri, name).version)
    if move_alias:
        client.set_registered_model_alias(name, config.alias, version)
    return f"models:/{name}/{version}"


def _logged(client: mlflow.MlflowClient, run: Run, training: str) -> str | None:
    """The model of the training that the run has; those whose upload was broken off are deleted."""
    ready = None
    for model in client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"):
        if model.tags.get(TRAINING_TAG) != training:
            continue
        if model.status == LoggedModelStatus.READY:
            ready = f"models:/{model.model_id}"
        else:
            client.delete_logged_model(model.model_id)
    return ready


@contextmanager
def _time_for(folder: Path) -> Iterator[None]:
    """Have MLflow wait for a server's answer as long as the largest file takes, unless it waits longer anyhow."""
    before = os.environ.get(TIMEOUT)
    largest = max((file.stat().st_size for file in folder.rglob("*") if file.is_file()), default=0)
    os.environ[TIMEOUT] = str(int(before or 120) + largest // UPLOAD_BYTES_PER_SECOND)
    try:
        yield
    finally:
        if before is None:
            del os.environ[TIMEOUT]
        else:
            os.environ[TIMEOUT] = before
