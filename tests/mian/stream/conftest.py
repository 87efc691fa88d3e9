"""Small samples on disk: every row knows its number, so that each can be told from all others wherever it turns up."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mian.contract import Contract, SampleFile
from tests.factories import write_numbered_samples


@dataclass(frozen=True)
class Samples:
    folder: str
    contract: Contract

    def path(self, file: int) -> Path:
        return Path(self.folder) / self.files[file].path

    @property
    def files(self) -> list[SampleFile]:
        return [file for day in self.contract.days for file in day.files]


@pytest.fixture
def write_samples(tmp_path: Path) -> Callable[..., Samples]:
    """Writes numbered samples, see :func:`tests.factories.write_numbered_samples`, into a folder with an odd name."""

    def write(*arguments: Any, **options: Any) -> Samples:
        folder = tmp_path / "samples with a # and a ? in their path"
        return Samples(str(folder), write_numbered_samples(folder, *arguments, **options))

    return write


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    """Whatever a test does with a stream, all of its threads have ended."""
    before = set(threading.enumerate())
    yield
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(timeout=5)
    assert not {thread.name for thread in started if thread.is_alive()}
