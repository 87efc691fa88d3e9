"""Empty tracking stores; MLflow takes seconds to make one, and a copy is as good."""

import functools
import tempfile
from pathlib import Path

from mlflow import MlflowClient


def new_store(path: Path) -> str:
    """Make an empty database of MLflow's; its tracking URI."""
    path.write_bytes(_empty_database())
    return f"sqlite:///{path}"


@functools.cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{path}").search_experiments()
        return path.read_bytes()
