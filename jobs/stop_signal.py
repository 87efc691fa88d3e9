"""SIGTERM, asked for politely."""

from __future__ import annotations

import sys
from types import FrameType

STOPPED = 75
"""Exit code of a job that was asked to stop and did: EX_TEMPFAIL, start it again and it goes on."""


class StopSignal:
    """The first SIGTERM asks the training to stop after a step, and is too late where none is left: the model is kept then.

    Before the first step, or at the second SIGTERM, the process ends as after an error.
    """

    def __init__(self) -> None:
        self.heeded = False
        """Whether the training has begun, which asks."""
        self._asked = False

    def asked(self) -> bool:
        """Whether there was one."""
        return self._asked

    def received(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self._asked or not self.heeded:
            sys.exit(128 + number)
        self._asked = True
