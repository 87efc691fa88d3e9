"""A tracking server within this process, that passes artifacts on as one in a cluster does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.tracking._model_registry import utils as registries
from werkzeug.serving import make_server

from tests.support.stores import new_store

REGISTRY = "MLFLOW_REGISTRY_URI"
"""A server's process sets it for its children; of the process as a client it is to stay as it was."""


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """Serve a store and its artifacts, both in a folder; the server's address."""
    from mlflow.server import app, handlers

    settings = {
        "_MLFLOW_SERVER_FILE_STORE": new_store(folder / "server.db"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": (folder / "artifacts").as_uri(),
    }
    before = {name: os.environ.get(name) for name in (*settings, REGISTRY)}
    os.environ.update(settings)
    for name in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
        setattr(handlers, name, None)
    uri, registry = mlflow.get_tracking_uri(), registries._registry_uri
    handlers._get_tracking_store()
    handlers._get_model_registry_store()
    mlflow.set_tracking_uri(uri)  # of the process as a client
    registries._registry_uri = registry
    _restore(REGISTRY, before[REGISTRY])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for name, value in before.items():
            _restore(name, value)


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
