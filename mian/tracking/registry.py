"""From a servable folder to a version in MLflow's registry."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion

from mian.config import TrackingConfig
from mian.scoring.servable_files import MODEL_FILE, read_description
from mian.serving import Servable, ServableError, load_servable
from mian.serving.mlflow_export import log_servable
from mian.serving.servable import servable_digest
from mian.tracking.mlflow_store import check_store, downloading, uploading
from mian.tracking.model_lineage import lineage_tags
from mian.tracking.model_source import find_version, is_registered, servable_in
from mian.tracking.records import TRAINING_FILE, TRAINING_TAG, read_training

UPLOAD_BYTES_PER_SECOND = 1_000_000
"""A server that passes files on to its own storage answers when all of a file is there; slower than this is a failure."""
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
ENDED_TAG = "mian.ended"
"""Tag of a version: when its training ended, in milliseconds since 1970."""
ALIAS_TAG = "mian.alias"
"""Tag of a version: the alias that was moved to it when it was registered."""

log = logging.getLogger(__name__)


def register(folder: str, example: pd.DataFrame, config: TrackingConfig, move_alias: bool) -> str:
    """Log a servable folder to the active run; with a registered name, as its next version. What the run has already is used again.

    The logged model carries the id of its training as tag; models of the run without it are left alone.

    Args:
        folder: the model, with its ``training.json``.
        example: see :func:`mian.serving.input_example`.
        config: the names.
        move_alias: whether the alias is to point to the version then, unless it did before, or is at one whose training ended later.

    Returns:
        The model's URI.

    Raises:
        TrackingError: ``training.json`` cannot be read.
    """
    record = read_training(Path(folder))
    run = mlflow.active_run()
    assert run is not None, "the run was begun"
    client = mlflow.MlflowClient()
    name = config.registered_name
    uri = _logged(client, run, record.training)
    if uri is None:
        with _time_for(Path(folder)), uploading():
            uri = str(log_servable(folder, example, tags={TRAINING_TAG: record.training}).model_uri)
    if name is None:
        return uri
    versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    version = next((version for version in versions if (version.name, version.source) == (name, uri)), None)
    if version is None:
        lineage = read_description(Path(folder)).lineage
        tags = {ENDED_TAG: str(record.ended or run.info.start_time)} | (lineage_tags(lineage) if lineage is not None else {})
        version = mlflow.register_model(uri, name, tags=tags)
    if move_alias:
        _move_alias(client, config.alias, version)
    return f"models:/{name}/{version.version}"


def _move_alias(client: mlflow.MlflowClient, alias: str, version: ModelVersion) -> None:
    """Have an alias point to a version, once, unless it is at one whose training ended later."""
    name = version.name
    current = client.get_registered_model(name).aliases.get(alias)
    if current is not None and str(current) != str(version.version):
        if version.tags.get(ALIAS_TAG) == alias:
            log.info("alias %s unchanged: it was moved from version %s to %s since", alias, version.version, current)
            return
        if _ended(client.get_model_version(name, current)) > _ended(version):
            log.info("alias %s unchanged: it is at version %s, whose training ended later", alias, current)
            return
    client.set_registered_model_alias(name, alias, version.version)
    client.set_model_version_tag(name, version.version, ALIAS_TAG, alias)


def _ended(version: ModelVersion) -> int:
    return int(version.tags.get(ENDED_TAG, version.creation_timestamp))


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


def pinned(uri: str) -> str:
    """The address of the version that an alias is at now; any other address as it is.

    Raises:
        MlflowException, SQLAlchemyError: MLflow does not answer.
        TrackingError: it has no such model, or can never answer there.
    """
    if not is_registered(uri) or Path(uri).exists():
        return uri
    check_store(mlflow.get_tracking_uri(), is_read=True)
    return find_version(uri).uri


def attach_files(uri: str, files: Sequence[Path]) -> None:
    """Put files beside those of the servable folder of a registered model, in this order.

    Args:
        uri: of the version, ``models:/mian/1``; an alias may have moved since the files were made, see :func:`pinned`.
        files: local files.

    Raises:
        ArtifactStoreError, MlflowException, OSError, SQLAlchemyError: MLflow has no such model, or does not answer.
    """
    model = mlflow.models.get_model_info(uri)
    place = model.flavors[mlflow.pyfunc.FLAVOR_NAME]["artifacts"]["servable"]["path"]
    client = mlflow.MlflowClient()
    with uploading():
        for file in files:
            client.log_model_artifact(model.model_id, str(file), place)


def load_model(uri: str) -> Servable:
    """A servable model from a folder that a training kept, or from MLflow: ``models:/mian/1``, ``models:/mian@newest``.

    Raises:
        MlflowException, SQLAlchemyError: MLflow has no such model, or does not answer.
        ServableError: it is no such model, or is damaged.
        TrackingError: MLflow can never answer there.
    """
    with tempfile.TemporaryDirectory() as copy:
        return load_servable(_fetched(uri, copy)[0])


class FetchedModel(NamedTuple):
    """A servable folder of this machine, and which version it is: see :func:`fetch_model`."""

    folder: Path
    version: str


def fetch_model(uri: str, copy: str | Path) -> FetchedModel:
    """Bring a model to this machine.

    An alias is resolved first, so that the version is that of the files, also where the alias is moved meanwhile.

    Args:
        uri: a folder that a training kept, which stays where it is, or a model of MLflow, see :func:`load_model`.
        copy: an empty folder that MLflow's files are put into.

    Returns:
        The servable folder, and its version: ``mian/3`` of a registered model; else the id of its training, or the first digits of the
        SHA-256 of its files where it does not say.

    Raises:
        MlflowException, SQLAlchemyError: MLflow has no such model, or does not answer.
        ServableError: it is no such model.
        TrackingError: MLflow can never answer there, or ``training.json`` cannot be read.
    """
    folder, version = _fetched(uri, copy)
    return FetchedModel(folder, version or _training_or_digest(folder))


def _fetched(uri: str, copy: str | Path) -> tuple[Path, str | None]:
    """A model's servable folder, and its version if it is registered; see :func:`fetch_model`."""
    folder, version = Path(uri), None
    if ":" in uri and not folder.exists():
        check_store(mlflow.get_tracking_uri(), is_read=True)
        if is_registered(uri):
            found = find_version(uri)
            uri, version = found.uri, f"{found.name}/{found.version}"
        with downloading():
            files = mlflow.artifacts.download_artifacts(uri, dst_path=str(copy))
        folder = servable_in(Path(files), uri)
    if not (folder / MODEL_FILE).exists():
        raise ServableError(f"{uri}: no model that mian trained; give the folder that a training named, or models:/NAME/VERSION")
    return folder, version


def _training_or_digest(folder: Path) -> str:
    if (folder / TRAINING_FILE).exists():
        return read_training(folder).training
    return servable_digest(folder)[:16]
