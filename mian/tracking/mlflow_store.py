"""Tracking stores: which one, whether it answers, and what it can never take."""

from __future__ import annotations

import fcntl
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import mlflow
import requests
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    INVALID_STATE,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    UNAUTHENTICATED,
    ErrorCode,
)
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from mian.tracking.errors import ArtifactStoreError, TrackingError, hide_passwords
from mian.tracking.records import TRAINING_TAG

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"
PROBE_SECONDS = 5.0
ATTEMPTS = 4
"""To make a store or an experiment that another process makes at the same time."""

#: What a tracking store raises when it is not there, or goes away.
STORE_ERRORS = (ArtifactStoreError, MlflowException, OSError, SQLAlchemyError)

_REFUSALS = frozenset(
    ErrorCode.Name(code)
    for code in (INVALID_PARAMETER_VALUE, INVALID_STATE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, UNAUTHENTICATED)
)


@contextmanager
def uploading() -> Iterator[None]:
    """Round the upload of artifacts: clients of object stores raise errors of their own, which MLflow passes on.

    Raises:
        ArtifactStoreError: for each error that is none of :data:`STORE_ERRORS`.
    """
    with _passed_on("uploaded"):
        yield


@contextmanager
def downloading() -> Iterator[None]:
    """The same, round their download."""
    with _passed_on("downloaded"):
        yield


@contextmanager
def _passed_on(done: str) -> Iterator[None]:
    try:
        yield
    except STORE_ERRORS:
        raise
    except Exception as error:
        raise ArtifactStoreError(f"artifacts cannot be {done}: {type(error).__name__}: {error}") from error


def tracking_uri(configured: str | None) -> str:
    """The tracking store: the configured one, or else ``MLFLOW_TRACKING_URI``, or else :data:`DEFAULT_URI`.

    SQLAlchemy decodes ``%20`` and the like in the path of an SQLite database; where the folder itself has such a name, it is escaped.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if uri.startswith("sqlite:") and "%" in uri:
        literal, decoded = uri.partition(":///")[2], make_url(uri).database
        if decoded and not pathlib.Path(decoded).parent.is_dir() and pathlib.Path(literal).parent.is_dir():
            return uri.replace("%", "%25")
    return uri


def refuses(error: Exception) -> bool:
    """Whether a store answered, and will never take what it was told."""
    return isinstance(error, MlflowException) and error.error_code in _REFUSALS


def check_store(uri: str, is_read: bool = False) -> None:
    """Look once whether a tracking store answers; MLflow itself would ask again for minutes, of a database for most of an hour.

    Args:
        uri: of the store.
        is_read: whether nothing is written there, so that a database has to be there already.

    Raises:
        TrackingError: no such store can ever answer.
        SQLAlchemyError: the database does not.
        OSError: the server does not, or there cannot be a file of that name.
    """
    if uri.startswith(("http://", "https://")):
        try:
            with suppress(requests.exceptions.SSLError):  # it is there, and MLflow knows which certificates to trust
                requests.head(uri, timeout=PROBE_SECONDS)
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise TrackingError(
                f"{hide_passwords(uri)} is no address of a tracking server ({hide_passwords(str(error))}); give one such as http://host:5000"
            ) from error
    if _is_database(uri):
        _check_database(uri, is_read)


def _check_database(uri: str, is_read: bool) -> None:
    remedy = "give a tracking URI such as sqlite:///mlflow.db or postgresql://user@host/database"
    try:
        url = make_url(uri)
        engine = create_engine(url)
    except ImportError as error:
        raise TrackingError(
            f"{hide_passwords(uri)} needs {error.name}, which is not installed: pip install {error.name}"
        ) from error
    except ArgumentError as error:
        raise TrackingError(
            f"{hide_passwords(uri)} is no database that SQLAlchemy knows ({hide_passwords(str(error))}); {remedy}"
        ) from error
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise TrackingError(f"{uri} is a database in memory, which ends with the process; {remedy}")
        if is_read and not pathlib.Path(url.database).exists():
            raise TrackingError(
                f"{uri}: there is no such store; give --tracking-uri, or set MLFLOW_TRACKING_URI, to the one that has the model"
            )
        pathlib.Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "sqlite":  # which looks at the file no sooner
                connection.exec_driver_sql("PRAGMA schema_version")
    except DatabaseError as error:
        if "file is not a database" in str(error):
            raise TrackingError(f"{uri}: {url.database} is there, and is no SQLite database; {remedy}") from error
        raise
    finally:
        engine.dispose()


def open_experiment(uri: str, name: str) -> str:
    """The id of an experiment; it, and the tables of a database, are made where they are not there yet.

    Raises:
        TrackingError: the experiment can never take a run.
        MlflowException, OSError, SQLAlchemyError: the store does not answer, or can never take a run, see :func:`refuses`.
    """
    with _alone(uri):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _experiment(uri, name)
            except (MlflowException, SQLAlchemyError) as error:
                other = isinstance(error, SQLAlchemyError) or error.error_code == ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
                if not other or attempt == ATTEMPTS:
                    raise
                time.sleep(attempt)  # another process makes it, or its tables
                check_store(uri)
    raise AssertionError("one attempt returns or raises")


def _experiment(uri: str, name: str) -> str:
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        location = pathlib.Path(ARTIFACTS).resolve().as_uri() if uri.startswith("sqlite:") else None
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise TrackingError(
            f"tracking.experiment: {name} is deleted in {hide_passwords(uri)}; restore it (mlflow experiments restore --experiment-id "
            f"{found.experiment_id}), or name another one"
        )
    return str(found.experiment_id)


def find_run(experiment: str, training: str) -> Run | None:
    """The run of a training, where the store has it."""
    found = mlflow.MlflowClient().search_runs([experiment], f"tags.`{TRAINING_TAG}` = '{training}'", max_results=1)
    return found[0] if found else None


def known_run(run_id: str) -> Run | None:
    """A run that is to go on; None where it is gone from the store, or deleted."""
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def run_of_environment(run_id: str, experiment: str, params: Mapping[str, str]) -> Run:
    """The run that ``MLFLOW_RUN_ID`` names.

    Raises:
        TrackingError: it is not there, is deleted, lies in another experiment, or is that of another training.
    """
    remedy = "unset MLFLOW_RUN_ID"
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        if not refuses(error):
            raise
        raise TrackingError(f"MLFLOW_RUN_ID: there is no run {run_id}; {remedy}") from error
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise TrackingError(f"MLFLOW_RUN_ID: run {run_id} is deleted; {remedy}")
    if run.info.experiment_id != experiment:
        raise TrackingError(
            f"MLFLOW_RUN_ID: run {run_id} is in another experiment than tracking.experiment; {remedy}, or name that one"
        )
    differing = sorted(name for name in run.data.params.keys() & params if run.data.params[name] != params[name])
    if differing or TRAINING_TAG in run.data.tags:
        what = f"its {differing[0]} is {run.data.params[differing[0]]}" if differing else "it has metrics of its own"
        raise TrackingError(f"MLFLOW_RUN_ID: run {run_id} is that of another training, {what}; {remedy}")
    return run


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keep other processes of this machine from making the same SQLite database: the folder that it lies in is locked meanwhile."""
    database = make_url(uri).database if uri.startswith("sqlite:") else None
    if not database:
        yield
        return
    folder = os.open(pathlib.Path(database).resolve().parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks; then another attempt has to do
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def error_text(error: Exception) -> str:
    """An error of the store in a line, without passwords."""
    return hide_passwords(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
