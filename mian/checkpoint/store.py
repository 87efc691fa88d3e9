"""What a training needs to go on where it was stopped, kept in files that are whole or not there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from mian.atomic_write import part_of, write_atomically
from mian.checkpoint.keys import code_versions
from mian.checkpoint.manifest import Manifest, sync_folder
from mian.checkpoint.notes import NOTES, absolute_samples, noted_config
from mian.config import TrainConfig
from mian.contract import Contract
from mian.fingerprint import file_sha256
from mian.models import current_names

log = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
CONTENT = "state.pt"
_PART = ".part"
_OLD = ".old"

Kind = Literal["step", "best"]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or none of those that are there can be read."""


class CheckpointStore:
    """Checkpoints of one training, each a folder: ``step-000000120/`` holds the state after a step, and a manifest with its checksum.

    A folder gets its name when it is complete and on the disk. A state holds tensors and plain values alone, and nothing else is read, so
    that no code in a file is ever run. ``best-000000063/`` holds the weights that had the best validation metrics up to then. A step's
    checkpoint names the best one; if the best one cannot be read, the step's checkpoint is used without it.

    Args:
        folder: a local path.
        keep: how many of the newest checkpoints that can be read are kept, with the best ones that they name.
        config: the training's settings, which are noted beside its checkpoints, see :data:`NOTES`.
        contract: the contract of its samples, which is noted without its days.
        ended: the folder that keeps the checkpoints when the training has ended, for a training of more epochs; None keeps none.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        config: TrainConfig | None = None,
        contract: Contract | None = None,
        ended: Path | None = None,
    ) -> None:
        self.folder = folder
        self._keep = keep
        self._config = config
        self._contract = contract
        self._ended = ended
        self._whole: dict[Path, bool] = {}

    def save(self, kind: Kind, step: int, state: Mapping[str, Any], best_step: int) -> None:
        """Write a checkpoint; one of that kind and step that is there is replaced.

        Args:
            kind: ``step``, or ``best``, whose state is ``{"model": weights, "validation": metrics}``.
            step: after which it is taken.
            state: tensors and plain values, nested as one likes.
            best_step: of the best one up to then.

        Raises:
            CheckpointError: it cannot be written; nothing of it is left, and one that was there is still there.
        """
        target = self._path(kind, step)
        part, old = (target.with_name(target.name + suffix) for suffix in (_PART, _OLD))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._note()
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            with (part / CONTENT).open("wb") as content:
                torch.save(dict(state), content)
                os.fsync(content.fileno())
            with (part / MANIFEST).open("w", encoding="utf-8") as file:
                manifest = Manifest(step=step, best_step=best_step, sha256=file_sha256(part / CONTENT))
                file.write(manifest.model_dump_json(indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            part.rename(target)
            sync_folder(self.folder)
            shutil.rmtree(old, ignore_errors=True)
            self._whole[target] = True
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(part, ignore_errors=True)
            self._put_back()
            self._forget_notes_of_nothing()
            raise CheckpointError(f"{target}: the checkpoint cannot be written ({' '.join(str(error).split())})") from error

    def tidy(self, newest: int) -> None:
        """Remove what is not needed any more, with halves of killed ones; nothing that can be read goes for something that cannot.

        Args:
            newest: the step of the newest checkpoint. Of those up to it so many as are to be kept and can be read stay, and with each the
                best one that it names, or else the one that :meth:`newest` takes in its place. Damaged ones among them stay as long.
                Later ones go: they were damaged, or the training would have gone on from them.
        """
        up_to_newest = [step for step in self.steps() if step <= newest]
        readable = [step for step in up_to_newest if self.is_readable("step", step)][-self._keep :]
        kept = {self._path("step", step) for step in up_to_newest if not readable or step >= readable[0]}
        for step in readable:
            kept.update(self._path("best", best) for best in self._bests(self._manifest(self._path("step", step)).best_step))
        for path in self.folder.iterdir():
            if path not in kept and path.name != NOTES:
                shutil.rmtree(path, ignore_errors=True)

    def steps(self, kind: Kind = "step") -> list[int]:
        """The steps that have a checkpoint of a kind, ascending."""
        found = (re.fullmatch(rf"{kind}-(\d+)", path.name) for path in self.folder.glob(f"{kind}-*"))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that can be read, with its best; None where no checkpoint is there. One that is damaged is named, and skipped.

        Where there is none, that of a training that has ended after fewer epochs is one to go on from.

        Where the best one that it names cannot be read, its own weights take the place if they are those; else the best one before, with
        the metrics that it had; else there is none. Its progress says which.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        self._put_back()
        steps = self.steps()
        for step in reversed(steps):
            try:
                state = self.read("step", step)
                return self._with_best(state, step, self._manifest(self._path("step", step)).best_step)
            except CheckpointError as error:
                log.warning("%s; the checkpoint before it is used", error)
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of its {len(steps)} checkpoints can be read; remove the folder to start anew"
            )
        return self._of_fewer_epochs()

    def is_readable(self, kind: Kind, step: int) -> bool:
        """Whether a checkpoint is there and whole. What this store has written or looked at before is not read again."""
        path = self._path(kind, step)
        if path not in self._whole or not path.exists():
            try:
                self._whole[path] = file_sha256(path / CONTENT) == self._manifest(path).sha256
            except (OSError, CheckpointError):
                self._whole[path] = False
        return self._whole[path]

    def read(self, kind: Kind, step: int) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            CheckpointError: it is missing, cut off or changed.
        """
        path = self._path(kind, step)
        self._whole[path] = False
        manifest = self._manifest(path)
        try:
            if file_sha256(path / CONTENT) != manifest.sha256:
                raise CheckpointError(f"{path / CONTENT}: cut off or changed, its checksum is not that of {MANIFEST}")
            state: dict[str, Any] = torch.load(path / CONTENT, map_location="cpu", weights_only=True, mmap=True)
        except CheckpointError:
            raise
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path / CONTENT}: cannot be read ({' '.join(str(error).split())})") from error
        self._whole[path] = True
        return state | {part: current_names(state[part]) for part in ("model", "optimizer") if part in state}

    def _of_fewer_epochs(self) -> dict[str, Any] | None:
        """The last state of a training that ended, which more epochs go on from."""
        if self._ended is None or self._config is None or not self._ended.exists():
            return None
        before = noted_config(self._ended)
        if before is None or before.epochs >= self._config.epochs:
            return None
        state = CheckpointStore(self._ended, 1).newest()
        if state is None:
            return None
        progress = {name: value for name, value in state["progress"].items() if name not in ("planned_samples", "run_id")}
        if progress["bad_evaluations"] >= before.patience:
            progress["bad_evaluations"] = 0
        if self._config.max_steps is not None and progress["step"] >= self._config.max_steps:
            return None  # as many steps as are asked for are done: begin anew
        log.info("%s: goes on from the training of %d epochs that has ended", self._ended, before.epochs)
        return state | {"progress": progress | {"finished": False}}

    def _note(self) -> None:
        if self._config is not None and not (self.folder / NOTES).exists():
            notes: dict[str, Any] = {
                "config": self._config.model_dump(mode="json", exclude={"tracking"})
                | {"samples": absolute_samples(self._config.samples)},
                "versions": code_versions(self._config.model.name),
            }
            if self._contract is not None:
                notes["contract"] = self._contract.model_copy(update={"days": ()}).to_json()
            write_atomically(self.folder / NOTES, json.dumps(notes, indent=1) + "\n")

    def _forget_notes_of_nothing(self) -> None:
        if not self.steps() and not self.steps("best"):
            for path in (self.folder / NOTES, part_of(self.folder / NOTES)):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _with_best(self, state: dict[str, Any], step: int, best_step: int) -> dict[str, Any]:
        """A state with the weights that were best."""
        if not best_step:
            return state | {"best": {}}
        try:
            return state | {"best": self.read("best", best_step)["model"]}
        except CheckpointError as error:
            if step == best_step:
                return state | {"best": state["model"]}
            why = error
        for before in reversed([before for before in self.steps("best") if before < best_step]):
            with contextlib.suppress(CheckpointError):
                best = self.read("best", before)
                if "validation" in best:
                    log.warning(
                        "%s; the training goes on after step %s with the best weights before, of step %s", why, step, before
                    )
                    progress = state["progress"] | {"best_step": before, "best": best["validation"]}
                    return state | {"best": best["model"], "progress": progress}
        log.warning("%s; the training goes on after step %s without best weights, the next evaluation finds some", why, step)
        progress = {name: value for name, value in state["progress"].items() if name not in ("best_step", "best")}
        return state | {"best": {}, "progress": progress}

    def _bests(self, best_step: int) -> list[int]:
        """The best checkpoint that is named, and the one that takes its place where it cannot be read."""
        if not best_step or self.is_readable("best", best_step):
            return [best_step]
        before = [step for step in self.steps("best") if step < best_step and self.is_readable("best", step)]
        return [best_step, *before[-1:]]

    def _put_back(self) -> None:
        """Where a process was killed while it replaced a checkpoint, the one from before is there again."""
        for old in self.folder.glob(f"*{_OLD}"):
            if not (target := old.with_suffix("")).exists():
                with contextlib.suppress(OSError):
                    old.rename(target)

    def clear(self) -> None:
        """Remove all, and the folder above where no other training has any: this one has ended, and its model is elsewhere.

        The last checkpoint stays where it is to be kept, in the place of one that was kept before, unless that one got further.
        """
        if self._ended is not None and self.steps() and not self._ended_later(self._ended, self.steps()[-1]):
            self.tidy(self.steps()[-1])
            with contextlib.suppress(OSError):
                self._ended.parent.mkdir(parents=True, exist_ok=True)
                before = self._ended.with_name(f"{self._ended.name}{_OLD}")
                shutil.rmtree(before, ignore_errors=True)
                if self._ended.exists():
                    self._ended.rename(before)
                self.folder.rename(self._ended)
                shutil.rmtree(before, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    @staticmethod
    def _ended_later(folder: Path, step: int) -> bool:
        """Whether a training of more steps is kept already."""
        kept = CheckpointStore(folder, 1)
        later = [other for other in kept.steps() if other > step and kept.is_readable("step", other)]
        if later:
            log.info(
                "%s: the checkpoint of step %s stays, this training ended after step %s", folder, f"{later[-1]:,}", f"{step:,}"
            )
        return bool(later)

    def _path(self, kind: Kind, step: int) -> Path:
        return self.folder / f"{kind}-{step:09d}"

    def _manifest(self, path: Path) -> Manifest:
        try:
            return Manifest.model_validate_json((path / MANIFEST).read_bytes())
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{path / MANIFEST}: cannot be read ({' '.join(str(error).split())})") from error
