"""A version of the registry on this machine: what is compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mian.contract.lineage import Lineage
from mian.serving import Servable, load_servable
from mian.serving.servable import servable_files
from mian.tracking.model_source import RegisteredVersion
from mian.tracking.registry import fetch_model


@dataclass(frozen=True)
class Contender:
    """A registered version and its files.

    Attributes:
        version: Its name and number.
        folder: The servable folder.
        servable: The model.
    """

    version: RegisteredVersion
    folder: Path
    servable: Servable

    @property
    def lineage(self) -> Lineage | None:
        """What the model was made from; None where it does not say."""
        return self.servable.lineage

    @property
    def bytes(self) -> int:
        """Size of the files that make up the model."""
        return sum((self.folder / name).stat().st_size for name in servable_files(self.folder))


@contextmanager
def contender(version: RegisteredVersion) -> Iterator[Contender]:
    """Fetch a version; its files are there as long as the block runs.

    Raises:
        MlflowException, OSError: The store does not answer.
        ServableError: It is no model that mian trained, or is damaged.
    """
    with tempfile.TemporaryDirectory() as copy:
        folder = fetch_model(version.uri, copy).folder
        yield Contender(version, folder, load_servable(folder))
