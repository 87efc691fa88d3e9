"""SIGTERM, asked for politely."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from jobs import command
from mian.distributed.collectives import RankError
from mian.training import TrainingStopped

log = logging.getLogger(__name__)

STOPPED = 75
"""Exit code of a job that was asked to stop and did: EX_TEMPFAIL, start it again and it goes on."""


class StopSignal:
    """The first SIGTERM asks the training to stop after a step, and is too late where none is left: the model is kept then.

    Before the first step, or at the second SIGTERM, the process ends as after an error.
    """

    def __init__(self) -> None:
        self.heeded = False
        """Whether the training has begun, which asks."""
        self._requested = False

    def heed(self) -> None:
        """From now on the first SIGTERM is a request."""
        self.heeded = True

    def requested(self) -> bool:
        """Whether this process has received a SIGTERM that asks it to stop."""
        return self._requested

    def received(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: note the request, or exit if no training heeds it."""
        if self._requested or not self.heeded:
            sys.exit(128 + number)
        self._requested = True


def run(job: Callable[[], None], errors: tuple[type[Exception], ...], stop: StopSignal, rank: Callable[[], int]) -> int:
    """Run a job that SIGTERM may end, on one of several ranks.

    Args:
        job: what to do.
        errors: that end it with their message alone, see :func:`jobs.command.run`.
        stop: hears SIGTERM meanwhile.
        rank: this process's.

    Returns:
        0 when the job is done, 1 after an error, here or on another rank, 75 when it was stopped and can go on.
    """
    before = signal.signal(signal.SIGTERM, stop.received)
    try:
        return command.run(job, errors)
    except TrainingStopped as stopped:
        log.info("rank %d: %s", rank(), stopped)
        return STOPPED
    except RankError as error:
        log.warning("rank %d ends: %s", rank(), error)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
