"""Where a server's models come from: a folder, or a registry whose client runs in a process of its own."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mian.scoring.servable_files import MODEL_FILE
from mian.tracking.alias_lookup import LookupFailedError, UnknownModelError, look_up_version
from mian.tracking.client_defaults import CLIENT_DEFAULTS
from mian.tracking.model_source import parse_model_uri

FETCH_SECONDS = 600.0
"""How long a version's files may take to be copied."""
Reason = Literal["store", "missing", "broken"]


class SourceError(RuntimeError):
    """There is no model to be had.

    Args:
        message: what is wrong and what to do.
        reason: ``store``: it does not answer; ``missing``: it has no such model; ``broken``: it has one that cannot be used.
        version: the one that cannot be used.
    """

    def __init__(self, message: str, reason: Reason, version: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.version = version


@dataclass(frozen=True)
class Fetched:
    """A version on this disk.

    Attributes:
        folder: the servable.
        name: see :class:`mian.server.loaded_model.LoadedModel`, likewise ``version``.
    """

    folder: Path
    name: str
    version: str


class ModelFiles(ABC):
    """A place that has models."""

    @abstractmethod
    def fetch(self, unless: Collection[str] = ()) -> AbstractContextManager[Fetched | None]:
        """The files of the present version, for as long as the context lasts; None where that is one of the versions ``unless``.

        Raises:
            SourceError: there is none.
        """

    def stop(self) -> None:  # noqa: B027 - most places have nothing to break off
        """Break off a fetch that is under way in another thread."""


class FolderFiles(ModelFiles):
    """A servable folder. Its version is the time of its latest file and some digits of the names, sizes and times of all of them.

    The files are copied before they are read: weights that are mapped into memory would change, or end the process, with their file.
    Another version counts once two looks in a row have found it, so that a folder which is written file by file is whole.

    Args:
        folder: the servable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: str | None = None

    @contextmanager
    def fetch(self, unless: Collection[str] = ()) -> Iterator[Fetched | None]:
        """See :class:`ModelFiles`."""
        version = self._version()
        is_settled = not unless or version == self._seen
        self._seen = version
        if version in unless or not is_settled:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="mian-serve-", ignore_cleanup_errors=True) as copy:
            try:
                folder = Path(shutil.copytree(self._folder, Path(copy) / "model"))
            except (OSError, shutil.Error) as error:
                raise SourceError(f"{self._folder}: {error}", "broken", version) from error
            if self._version() != version:
                raise SourceError(f"{self._folder}: the model was replaced while it was read", "broken", version)
            yield Fetched(folder, self._folder.resolve().name, version)

    def _version(self) -> str:
        if not (self._folder / MODEL_FILE).is_file():
            raise SourceError(f"{self._folder}: no model that mian trained; give the folder that a training named", "missing")
        try:
            files = sorted(path for path in self._folder.rglob("*") if path.is_file())
            found = [(str(path.relative_to(self._folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        except OSError as error:
            raise SourceError(f"{self._folder}: {error}", "store") from error
        written = dt.datetime.fromtimestamp(max(time for *_, time in found) / 1e9, dt.timezone.utc)
        return f"{written:%Y%m%dT%H%M%S}-{hashlib.sha256(repr(found).encode()).hexdigest()[:8]}"


class RegistryFiles(ModelFiles):
    """A model of MLflow's registry.

    An alias of a tracking server is looked up by one request. All else is done by a process that lasts as long as it takes: MLflow would
    be the larger part of this one's memory.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking_uri: of the registry; None takes ``MLFLOW_TRACKING_URI``.

    Raises:
        TrackingError: it is no such address.
    """

    def __init__(self, uri: str, tracking_uri: str | None) -> None:
        self._uri = uri
        self._parts = parse_model_uri(uri)
        self._environment = {**CLIENT_DEFAULTS, **os.environ}
        if tracking_uri is not None:
            self._environment["MLFLOW_TRACKING_URI"] = tracking_uri
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    @contextmanager
    def fetch(self, unless: Collection[str] = ()) -> Iterator[Fetched | None]:
        """See :class:`ModelFiles`."""
        if unless and self._is_known(unless):
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="mian-serve-", ignore_cleanup_errors=True) as folder:
            answer = self._ask(folder, unless)
            yield Fetched(Path(answer["folder"]), answer["name"], answer["version"]) if "folder" in answer else None

    def stop(self) -> None:
        """See :class:`ModelFiles`."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _is_known(self, versions: Collection[str]) -> bool:
        """Whether the address means one of some versions, as far as that is known without MLflow."""
        if self._parts.alias is None:
            return True
        registry = self._environment.get("MLFLOW_REGISTRY_URI") or self._environment.get("MLFLOW_TRACKING_URI", "")
        if not registry.startswith(("http://", "https://")):
            return False
        try:
            return look_up_version(registry, self._parts.name, self._parts.alias, self._environment) in versions
        except UnknownModelError as error:
            raise SourceError(f"{self._uri}: {error}", "missing") from error
        except LookupFailedError as error:
            raise SourceError(f"{self._uri}: {error}", "store") from error

    def _ask(self, folder: str, unless: Collection[str]) -> Mapping[str, str]:
        command = [sys.executable, "-m", "mian.tracking.model_source", self._uri, folder]
        command += ["--unless", *sorted(unless)] if unless else []
        with self._lock:
            if self._stopped:
                raise SourceError("the server ends", "store")
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment, start_new_session=True
            )
        try:
            output, errors = self._process.communicate(timeout=FETCH_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise SourceError(f"{self._uri}: its files were not copied after {FETCH_SECONDS:g} s", "store") from error
        finally:
            if self._process.poll() is None:  # a signal ends this process
                self._process.kill()
            self._process = None
        try:
            answer: Mapping[str, str] = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise SourceError(f"{self._uri}: the registry's client failed: {errors[-1_000:].strip()}", "store") from error
        if "error" in answer:
            raise SourceError(answer["error"], answer["reason"], answer.get("version"))  # type: ignore[arg-type]
        return answer


def model_files(model: str, tracking_uri: str | None) -> ModelFiles:
    """Where a model comes from.

    Args:
        model: a folder, or an address such as ``models:/NAME@ALIAS``.
        tracking_uri: see :class:`RegistryFiles`.

    Raises:
        TrackingError: it is no such address.
    """
    folder = Path(model)
    return RegistryFiles(model, tracking_uri) if ":" in model and not folder.exists() else FolderFiles(folder)
