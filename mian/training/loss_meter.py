"""The training loss and the time of steps, since the last point of the training curve."""

from __future__ import annotations

import time

import torch


class LossMeter:
    """The training loss since the last point of the curve; the sum stays a tensor, so that no step waits for it.

    Args:
        steps: how many losses there are already.
        total: their sum.
    """

    def __init__(self, steps: int = 0, total: float = 0.0) -> None:
        self.steps = steps
        self.total = torch.tensor(total)
        self._timed_from = steps
        self._waited = 0.0
        self._exchanged = 0.0
        self._started = time.perf_counter()
        self._last = self._started

    def add(self, loss: torch.Tensor, waited: float = 0.0, exchanged: float = 0.0) -> None:
        """Count a step.

        Args:
            loss: of its batch.
            waited: seconds that its batch was waited for.
            exchanged: seconds in exchanges with other ranks, waiting for them included.
        """
        self.total = self.total + loss  # where the loss is
        self.steps += 1
        self._waited += waited
        self._exchanged += exchanged
        self._last = time.perf_counter()

    def mean(self) -> torch.Tensor:
        """The mean of the losses."""
        return self.total / self.steps

    def steps_per_second(self) -> float:
        """How many steps a second this process has done since the last point of the curve."""
        return (self.steps - self._timed_from) / (self._last - self._started)

    def time_shares(self) -> torch.Tensor:
        """The shares of the time that went into waiting for data and into exchanges, ``(2,)``; the rest is computing.

        Writing checkpoints and reporting count as computing, evaluating not at all.
        """
        return torch.tensor([self._waited, self._exchanged]) / max(self._last - self._started, 1e-9)

    def pause(self) -> None:
        """Leave out the time since the last step."""
        self._started += time.perf_counter() - self._last
        self._last = time.perf_counter()
