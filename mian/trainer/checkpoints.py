"""What a training needs to go on where it was stopped, kept in files that are whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from mian.config import TrainConfig
from pipeline.contract import Contract

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
CONTENT = "state.pt"
_PART = ".part"

Kind = Literal["step", "best"]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or none of those that are there can be read."""


class Manifest(BaseModel):
    """What ``checkpoint.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-checkpoint"] = "mian-checkpoint"
    version: Literal[1] = 1
    step: int
    best_step: int
    """The best one up to then, which goes with it; 0 where there was none."""
    sha256: str


class CheckpointStore:
    """Checkpoints of one training, each a folder: ``step-000000120/`` with the state, and the file that vouches for it.

    A folder appears under its name when it is complete and on the disk. Tensors and plain values are all that a state may hold, and all
    that is read: no code comes out of a file. ``best-000000063/`` is what had the best validation up to then.

    Args:
        folder: a local path.
        keep: so many of the newest are kept, with the best ones that they name.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def save(self, kind: Kind, step: int, state: Mapping[str, Any], best_step: int) -> None:
        """Write a checkpoint; one of that kind and step that is there is replaced.

        Args:
            kind: ``step``, or ``best``, whose state is ``{"model": weights}``.
            step: after which it is taken.
            state: tensors and plain values, nested as one likes.
            best_step: of the best one up to then.

        Raises:
            CheckpointError: it cannot be written; nothing of it is left.
        """
        target = self._path(kind, step)
        part = target.with_name(target.name + _PART)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            with (part / CONTENT).open("wb") as content:
                torch.save(dict(state), content)
                os.fsync(content.fileno())
            with (part / MANIFEST).open("w", encoding="utf-8") as file:
                manifest = Manifest(step=step, best_step=best_step, sha256=_sha256(part / CONTENT))
                file.write(manifest.model_dump_json(indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            _sync_folder(self.folder)
        except (OSError, RuntimeError) as error:  # torch says a full disk in an error of its own
            shutil.rmtree(part, ignore_errors=True)
            raise CheckpointError(f"{target}: the checkpoint cannot be written ({' '.join(str(error).split())})") from error

    def tidy(self, newest: int) -> None:
        """Remove what is not needed any more, with halves of killed ones.

        Args:
            newest: the step of the newest checkpoint. Of those up to it so many as are to be kept stay, with the best ones that they name.
                Later ones go: they were damaged, or the training would have gone on from them.
        """
        kept = {self._path("step", step) for step in [step for step in self.steps() if step <= newest][-self._keep :]}
        for path in list(kept):
            with contextlib.suppress(CheckpointError):  # a damaged one stays in its place, and names none
                kept.add(self._path("best", self._manifest(path).best_step))
        for path in self.folder.iterdir():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return sorted(int(path.name.partition("-")[2]) for path in self.folder.glob("step-*") if path.suffix != _PART)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that can be read, with its best; None where no checkpoint is there. One that is damaged is named, and skipped.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                best_step = self._manifest(self._path("step", step)).best_step
                best = self.read("best", best_step)["model"] if best_step else {}
                return self.read("step", step) | {"best": best}
            except CheckpointError as error:
                log.warning("%s; the checkpoint before it is used", error)
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of its {len(steps)} checkpoints can be read; remove the folder to start anew"
            )
        return None

    def read(self, kind: Kind, step: int) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            CheckpointError: it is missing, cut off or changed.
        """
        path = self._path(kind, step)
        manifest = self._manifest(path)
        try:
            if _sha256(path / CONTENT) != manifest.sha256:
                raise CheckpointError(f"{path / CONTENT}: cut off or changed, its checksum is not that of {MANIFEST}")
            state: dict[str, Any] = torch.load(path / CONTENT, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path / CONTENT}: cannot be read ({' '.join(str(error).split())})") from error
        return state

    def clear(self) -> None:
        """Remove all, and the folder above where no other training has any: this one has ended, and its model is elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def _path(self, kind: Kind, step: int) -> Path:
        return self.folder / f"{kind}-{step:09d}"

    def _manifest(self, path: Path) -> Manifest:
        try:
            return Manifest.model_validate_json((path / MANIFEST).read_bytes())
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{path / MANIFEST}: cannot be read ({' '.join(str(error).split())})") from error


def training_key(config: TrainConfig, contract: Contract) -> str:
    """A name for a training: the same for the same settings on the same samples, whatever other days the data set has."""
    splits = {config.train_split, config.validation_split, config.test_split} - {None}
    days = {day.day: day for split in splits if split is not None for day in contract.split(split)}
    samples = contract.model_copy(update={"days": tuple(days[day] for day in sorted(days))})
    text = json.dumps([config.settings(), samples.to_json()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
