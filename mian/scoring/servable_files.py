"""The files of a servable folder that say what the model reads; no torch is needed for them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Literal

import fsspec
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from mian.contract import Contract, vocabulary_values
from mian.contract.lineage import Lineage

MODEL_FILE = "model.json"
GRAPH_FILE = "model.onnx"


class ServableError(ValueError):
    """The folder is not a servable model, is damaged, or was about to become one that does not fit its contract."""


class ModelDescription(BaseModel):
    """What ``model.json`` holds: how to build the model, and what it was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-servable"] = "mian-servable"
    version: Literal[3, 4] = 4
    """Documents of version 3 have no ``stand_ins``, no ``weights_sha256`` and no ``lineage``."""
    name: str
    options: dict[str, Any]
    stand_ins: dict[str, int | float] = {}
    """By column of the context what the model reads where a request leaves the field out: an id, or a transformed number; see
    :func:`mian.scoring.stand_ins.serving_stand_ins`."""
    weights_sha256: str = ""
    """SHA-256 of the file of weights, hexadecimal. A graph says of which weights it was made."""
    lineage: Lineage | None = None
    """What the model was made from; None where that is not known."""


def read_description(folder: Path) -> ModelDescription:
    """Read ``model.json`` of a servable folder.

    Raises:
        ServableError: it is missing or damaged.
    """
    path = folder / MODEL_FILE
    try:
        return ModelDescription.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ServableError(f"{path}: no such file; give a folder that save_servable wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ServableError(f"{path}: damaged, or of another release: {first['loc']}: {first['msg']}") from error


def read_vocabularies(contract: Contract, samples: str) -> dict[str, bytes]:
    """The files of a contract's vocabularies, by name; those that need none (hashes, buckets) are left out.

    Args:
        contract: names them, with their checksums.
        samples: the folder that their paths are relative to; a local path or any URL that fsspec opens.

    Raises:
        ServableError: one is missing, or is not the one that the contract names.
    """
    return {v.name: _checked(f"{samples.rstrip('/')}/{v.path}", v.sha256) for v in contract.vocabularies if v.path is not None}


def vocabulary_tables(contract: Contract, folder: str) -> dict[str, pa.Array]:
    """For each vocabulary that is a table, its values in the order of their ids.

    Args:
        contract: names the files.
        folder: see :func:`read_vocabularies`.

    Raises:
        ServableError: see :func:`read_vocabularies`.
    """
    return {name: vocabulary_values(io.BytesIO(content)) for name, content in read_vocabularies(contract, folder).items()}


def _checked(path: str, sha256: str | None) -> bytes:
    """The bytes of a vocabulary, which must be those that the contract names."""
    try:
        with fsspec.open(path, "rb") as file:
            content: bytes = file.read()
    except FileNotFoundError as error:
        raise ServableError(f"{path}: no such file; the contract names it as a vocabulary") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ServableError(f"{path}: not the vocabulary that the contract names; it was built again, or is damaged")
    return content
