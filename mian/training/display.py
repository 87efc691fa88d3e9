"""How far a training is, for whoever watches it: a progress bar on a terminal, lines in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

from mian.checkpoint.progress import Progress

SECONDS_A_LINE = 30.0
"""In a log file, at least so long between two lines."""

log = logging.getLogger(__name__)


class ProgressDisplay:
    """Shows the progress of a training on standard error.

    Args:
        progress: of the training.
        epochs: that are planned.
        shown: whether this rank shows anything.
    """

    def __init__(self, progress: Progress, epochs: int, shown: bool) -> None:
        self._progress = progress
        self._epochs = epochs
        self._shown = shown
        self._next_line = 0.0
        on_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=progress.planned_samples,
            initial=progress.samples,
            unit=" samples",
            unit_scale=True,
            disable=not on_terminal,
            mininterval=1.0,
        )

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def step_done(self, samples: int) -> None:
        """Count the samples of a step, over all ranks."""
        self._bar.update(samples)

    def show(self, loss: float, samples_per_second: float | None, time_shares: Mapping[str, float]) -> None:
        """Show the newest figures: on a terminal beside the bar, elsewhere as a line, if the last one is old enough.

        Args:
            loss: the mean of the steps since the last call.
            samples_per_second: over all ranks; None where it is not known yet.
            time_shares: of waiting, computing and exchanging, each from 0 to 1.
        """
        shares = {name: f"{share:.0%}" for name, share in time_shares.items()}
        self._bar.set_postfix({"logloss": f"{loss:.4f}"} | shares)
        if not self._shown or not self._bar.disable or time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + SECONDS_A_LINE
        progress = self._progress
        log.info(
            "step %s, epoch %d of %d, %.0f %% of the samples%s: logloss %.4f, %s",
            f"{progress.step:,}",
            progress.epoch_of_step + 1,
            self._epochs,
            100 * progress.completed_fraction,
            f", {samples_per_second:,.0f} a second" if samples_per_second else "",
            loss,
            ", ".join(f"{name} {share}" for name, share in shares.items()),
        )

    def write(self, line: str) -> None:
        """Print a line on standard output, beside the bar."""
        if self._shown:
            self._bar.write(line)
