"""Servable models of a registry: which version an alias is at, and a copy of its files. Torch is not needed.

``python -m mian.tracking.model_source URI FOLDER`` does it in a process of its own and prints one JSON line: MLflow takes seconds and
a hundred megabytes to import, which a server that answers meanwhile does without.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mian.scoring.servable_files import MODEL_FILE, ServableError
from mian.tracking.errors import TrackingError, hide_passwords

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class MissingModelError(TrackingError):
    """The registry answers, and has no such model, version or alias."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        name: of the model in the registry.
        version: its number, as text.
    """

    name: str
    version: str

    @property
    def uri(self) -> str:
        """Its address."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class ModelUri:
    """The parts of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Attributes:
        name: of the model in the registry.
        alias: None where a version is given.
        version: None where an alias is given.
    """

    name: str
    alias: str | None
    version: str | None


def parse_model_uri(uri: str) -> ModelUri:
    """Read the address of a registered model.

    Raises:
        TrackingError: it is none.
    """
    match = _REGISTERED.fullmatch(uri)
    if match is None:
        raise TrackingError(f"{uri}: not a registered model; give models:/NAME@ALIAS, models:/NAME/VERSION, or a folder")
    return ModelUri(match["name"], match["alias"], match["version"])


def is_registered(uri: str) -> bool:
    """Whether it is the address of a registered model, see :func:`parse_model_uri`."""
    return _REGISTERED.fullmatch(uri) is not None


def find_version(uri: str) -> RegisteredVersion:
    """Ask MLflow which version a model's address means now.

    Raises:
        MissingModelError: there is no such model, version or alias.
        TrackingError: it is no such address.
        MlflowException, OSError: the store does not answer.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    parts = parse_model_uri(uri)
    client = mlflow.MlflowClient()
    try:
        if parts.alias is not None:
            found = client.get_model_version_by_alias(parts.name, parts.alias)
        else:
            found = client.get_model_version(parts.name, str(parts.version))
    except MlflowException as error:
        if error.error_code in _MISSING:
            raise MissingModelError(
                f"{uri}: {error.message} (the store is {hide_passwords(mlflow.get_tracking_uri())})"
            ) from error
        raise
    return RegisteredVersion(parts.name, str(found.version))


def download_servable(version: RegisteredVersion, destination: Path) -> Path:
    """Copy the files of a registered version.

    Args:
        version: see :func:`find_version`.
        destination: an empty folder.

    Returns:
        The servable folder in there.

    Raises:
        ServableError: the version is no model that mian trained.
        MlflowException, OSError: the store does not answer, or the disk is full.
    """
    import mlflow

    return servable_in(Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=str(destination))), version.uri)


def servable_in(model: Path, uri: str) -> Path:
    """The servable folder within a model that MLflow copied.

    Args:
        model: the copy.
        uri: where it is from, for errors.

    Raises:
        ServableError: there is none.
    """
    found = sorted(path.parent for path in model.rglob(MODEL_FILE))
    if not found:
        raise ServableError(
            f"{uri}: no model that mian trained, it has no {MODEL_FILE}; give the folder that a training named, or models:/NAME/VERSION"
        )
    return found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a JSON line: the version and its folder, or the error and its kind; 0 when done, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("folder", help="where to copy the model's files; an empty folder")
    parser.add_argument(
        "--unless", nargs="*", default=[], metavar="VERSION", help="copy nothing where the address means one of these"
    )
    given = parser.parse_args(arguments)
    answer: dict[str, Any] = {}
    try:
        _use_store()
        version = find_version(given.uri)
        answer = asdict(version)
        if version.version not in given.unless:
            answer["folder"] = str(download_servable(version, Path(given.folder)))
    except MissingModelError as error:
        answer |= {"error": str(error), "reason": "missing"}
    except ServableError as error:
        answer |= {"error": str(error), "reason": "broken"}
    except Exception as error:  # noqa: BLE001 - clients of stores raise errors of their own; the caller is told by this line
        answer |= {"error": f"{given.uri}: the model's store does not answer: {error}"[:2_000], "reason": "store"}
    print(json.dumps(answer))
    return int("error" in answer)


def _use_store() -> None:
    import mlflow

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None or not uri.startswith(("http://", "https://")):
        from mian.tracking.mlflow_store import check_store, tracking_uri

        uri = tracking_uri(uri)
        check_store(uri, is_read=True)
    mlflow.set_tracking_uri(uri)


if __name__ == "__main__":
    sys.exit(main())
