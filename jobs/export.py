"""Export a model for serving: ``python jobs/export.py --model models:/mian@champion --to onnx``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow

from jobs import command
from jobs.configuration import ConfigError
from mian.contract import ContractError
from mian.models import ModelError
from mian.serving import ServableError
from mian.serving.onnx_export import ExportError, export_onnx, exported_files
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, tracking_uri
from mian.tracking.registry import attach_files, load_model, pinned

ERRORS = (ContractError, ExportError, ModelError, ServableError, TrackingError, *STORE_ERRORS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, export; 0 when the graph is beside the model, 1 with one clear error when not."""
    parser = command.parser(
        "Writes a model as a graph for one user and any number of candidates, which the server runs without PyTorch. The graph is\n"
        "compared with the model on 1,000 rows first, and refused where a probability differs by more than 1e-5."
    )
    parser.add_argument(
        "--model", required=True, help="models:/mian/1, models:/mian@champion, or the folder that a training kept"
    )
    parser.add_argument("--to", required=True, choices=["onnx"], help="the format: model.onnx, beside the model's other files")
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    return command.run(lambda: print(_export(vars(options))), ERRORS)


def _export(values: dict[str, Any]) -> str:
    mlflow.set_tracking_uri(tracking_uri(values["tracking_uri"]))
    uri = pinned(values["model"])  # the alias may move while the model is exported
    servable = load_model(uri)
    if Path(uri).is_dir():
        try:
            difference = export_onnx(servable, Path(uri))
        except OSError as error:
            raise ConfigError(
                f"--model: {uri} cannot be written ({error}); give a folder that can, or make room there"
            ) from error
    else:
        with tempfile.TemporaryDirectory() as folder:
            difference = export_onnx(servable, Path(folder))
            attach_files(uri, exported_files(Path(folder)))
    place = f"{uri}/model.onnx" if Path(uri).is_dir() else f"{uri}: model.onnx in the version's files in the registry"
    return f"{place} is written; its probabilities differ from the model's by at most {difference:.1e}"


if __name__ == "__main__":
    sys.exit(main())
