"""What a rank does in some of its steps, to be looked at in Perfetto."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType

import torch
from torch import profiler

log = logging.getLogger(__name__)

FIRST_STEPS = 10
"""Left out: threads start, memory is had from the system."""
STEPS = 5


class Trace:
    """Writes a trace of :data:`STEPS` steps: operators, and around them ``reading``, ``forward``, ``backward``, ``exchange``, ``update``.

    To be used in a ``with`` block around the training.

    Args:
        path: the file, in Chrome's JSON format, which https://ui.perfetto.dev opens; None writes none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._profiler: profiler.profile | None = None

    def __enter__(self) -> Trace:
        if self._path is not None:
            activities = [profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(profiler.ProfilerActivity.CUDA)
            schedule = profiler.schedule(wait=FIRST_STEPS - 1, warmup=1, active=STEPS, repeat=1)
            self._profiler = profiler.profile(activities=activities, schedule=schedule, on_trace_ready=self._write)
            self._profiler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            if self._path is not None and not self._path.exists():
                log.warning("%s: no trace, the training ended within its first %d steps", self._path, FIRST_STEPS)

    def step_done(self) -> None:
        """Tell the profiler that a step has ended."""
        if self._profiler is not None:
            self._profiler.step()

    def _write(self, recorded: profiler.profile) -> None:
        assert self._path is not None, "there is no profiler without"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            recorded.export_chrome_trace(str(self._path))
        except (OSError, RuntimeError) as error:
            log.warning("%s: the trace cannot be written (%s); the training goes on without it", self._path, error)
