"""The checkpoints that a folder of trainings holds, and whether any command would still go on from them."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from mian.checkpoint.keys import code_versions, key_of_any_epochs, training_contract, training_key
from mian.checkpoint.notes import NOTES
from mian.checkpoint.store import CheckpointStore
from mian.checkpoint.training_lock import TrainingLock
from mian.config import TrainConfig
from mian.contract import ContractError
from mian.models import ModelError

CHECKPOINTS = "checkpoints"
"""In the output folder of trainings."""
ENDED = "ended"
"""Beside it, for what stays of trainings that have ended."""

State = Literal["current", "old", "unknown"]


@dataclass(frozen=True)
class KeptCheckpoints:
    """The checkpoints of one training.

    ``current``: the same command goes on from them, or one with more epochs, or, of an ended training, ``init_from``. ``old``: no command
    does, as the code, the settings' schema or the samples have changed since; other samples make those of an ended training not old.
    ``unknown``: the samples cannot be read now.
    """

    folder: Path
    model: str
    samples: str
    step: int
    """Of the newest; 0 where there is none."""
    bytes: int
    written: dt.datetime
    state: State
    reason: str

    @property
    def key(self) -> str:
        """The training's name, see :func:`mian.checkpoint.keys.training_key`."""
        return self.folder.name

    def remove(self) -> None:
        """Remove them.

        Raises:
            AlreadyRunningError: a training that is running works with them.
        """
        with TrainingLock(lock_path(self.folder)):
            CheckpointStore(self.folder, 1).clear()


def lock_path(folder: Path) -> Path:
    """The lock of a training whose checkpoints lie in a folder."""
    return folder.with_name(f"{folder.name}.lock")


def kept_checkpoints(output: Path) -> Iterator[KeptCheckpoints]:
    """Those of all trainings of an output folder, in the order of their keys."""
    for folder in sorted(
        path for name in (CHECKPOINTS, ENDED) for path in (output / name).glob("*") if path.is_dir() and not path.suffix
    ):
        files = list(_files(folder))
        state, reason, config = _state(folder)
        yield KeptCheckpoints(
            folder,
            model="?" if config is None else config.model.name,
            samples="?" if config is None else config.samples,
            step=max(CheckpointStore(folder, 1).steps(), default=0),
            bytes=sum(status.st_size for status in files),
            written=dt.datetime.fromtimestamp(max((status.st_mtime for status in files), default=0), dt.timezone.utc),
            state=state,
            reason=reason,
        )


def _files(folder: Path) -> Iterator[os.stat_result]:
    """The files of a folder in which a training may write and remove some meanwhile."""
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield Path(place, name).stat()


def _state(folder: Path) -> tuple[State, str, TrainConfig | None]:
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        before = notes["versions"]
        config = TrainConfig.model_validate(notes["config"])
        now = code_versions(config.model.name)
    except FileNotFoundError:
        return "old", "of another release, which noted no settings", None
    except OSError as error:
        return "unknown", f"its settings cannot be read ({' '.join(str(error).split())})", None
    except (ValueError, KeyError, TypeError, ValidationError, ModelError):
        return "old", "of another release, whose settings are no longer known", None
    changed = [f"{part} {before.get(part)}, now {version}" for part, version in now.items() if version != before.get(part)]
    if changed:
        return "old", f"the code has changed: {', '.join(changed)}", config
    has_ended = folder.parent.name == ENDED
    try:
        key = (key_of_any_epochs if has_ended else training_key)(config, training_contract(config))
    except (ContractError, OSError) as error:
        return "unknown", f"the samples cannot be read ({' '.join(str(error).split())})", config
    if has_ended:
        remark = f"ended after {config.epochs} epochs"
        return "current", remark if key == folder.name else f"{remark}, on other samples: for init_from", config
    return ("current", "", config) if key == folder.name else ("old", "the samples have changed", config)
