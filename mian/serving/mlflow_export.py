"""From a servable folder to MLflow's registry."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models.model import ModelInfo

from mian.contract import read_contract
from mian.serving.code import code_digest, imported_package
from mian.serving.signature import signature

#: What serving needs beside the code that the model carries.
REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic", "fsspec")


def log_servable(
    folder: str | Path, input_example: pd.DataFrame, registered_name: str | None = None, tags: Mapping[str, str] | None = None
) -> ModelInfo:
    """Log a servable folder to the active MLflow run, with the code that it needs, as a ``pyfunc`` model.

    It loads where this project is not installed, and takes what :class:`mian.serving.request_encoder.RowEncoder` says.

    Args:
        folder: what :func:`mian.serving.save_servable` wrote.
        input_example: some raw rows, see :func:`mian.serving.input_example`; MLflow tries the model on them.
        registered_name: name in the registry, of which this becomes a new version; None leaves the model unregistered.
        tags: of the logged model; it has them from before its files are uploaded.
    """
    path = list(sys.path)
    with tempfile.TemporaryDirectory() as staging:
        try:
            info: ModelInfo = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("model.py")),
                artifacts={"servable": Path(folder).resolve().as_uri()},  # a bare path with % in it would be decoded
                code_paths=[str(_stage_code(Path(staging)))],
                signature=signature(read_contract(str(folder))),
                input_example=input_example,
                pip_requirements=requirements(),
                metadata={"code": code_digest(imported_package())},
                registered_model_name=registered_name,
                tags=dict(tags or {}),
            )
            return info
        finally:
            sys.path[:] = path  # MLflow leaves the folder it tried the model in


def requirements() -> list[str]:
    """Exact pins of what is installed; a build tag such as torch's ``+cpu`` is left out, any build of that version will do."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _stage_code(folder: Path) -> Path:
    """A copy of ``mian`` without caches."""
    return Path(shutil.copytree(imported_package(), folder / "mian", ignore=shutil.ignore_patterns("__pycache__")))
