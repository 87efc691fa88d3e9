"""The file that vouches for a checkpoint, and bytes that are on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Manifest(BaseModel):
    """The contents of ``checkpoint.json``, which vouches for the state beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-checkpoint"] = "mian-checkpoint"
    version: Literal[1] = 1
    step: int
    best_step: int
    """Of the best weights up to then, which are in a checkpoint of their own; 0 where there were none."""
    sha256: str


def sync_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
