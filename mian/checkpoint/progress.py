"""How far a training is."""

from __future__ import annotations

import math
import time

import torch
from pydantic import BaseModel, ConfigDict

from mian.stream import Leg


class Progress(BaseModel):
    """All of a training's state that is no tensor; it goes into checkpoints."""

    model_config = ConfigDict(extra="forbid")

    planned_samples: int
    """So many the learning rate's schedule counts on."""
    run_id: str | None = None
    """The MLflow run."""
    step: int = 0
    samples: int = 0
    """Over all ranks."""
    epoch: int = 0
    legs: list[Leg] = []
    """What other worlds than this one have done of the epoch; see :meth:`mian.stream.SampleStream.epoch`."""
    step_of_epoch: int = 0
    """Since the legs."""
    evaluation_due: bool = False
    """Whether the validation split is to be scored before the next step."""
    bad_evaluations: int = 0
    best_step: int = 0
    best: dict[str, float] = {"logloss": math.inf}
    finished: bool = False
    """Whether nothing is left but to evaluate and keep the model."""
    world_size: int
    batch_size: int
    """Of a rank."""

    @property
    def share(self) -> float:
        """How much of the planned samples is done, 0 to 1."""
        return min(1.0, self.samples / self.planned_samples)

    @property
    def epoch_of_step(self) -> int:
        """The epoch that the step done last was of."""
        begun = self.step_of_epoch > 0 or bool(self.legs)
        return self.epoch if begun else max(0, self.epoch - 1)

    def step_done(self) -> None:
        """Count a step."""
        self.step += 1
        self.step_of_epoch += 1
        self.samples += self.world_size * self.batch_size

    def epoch_done(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self.legs, self.step_of_epoch = [], 0

    def move_to(self, world_size: int, batch_size: int) -> None:
        """Go on with another number of ranks, or batches of another size: what is left of the epoch is shared out anew."""
        if (world_size, batch_size) != (self.world_size, self.batch_size):
            if self.step_of_epoch:
                self.legs = [*self.legs, Leg(self.world_size, self.batch_size, self.step_of_epoch)]
            self.step_of_epoch, self.world_size, self.batch_size = 0, world_size, batch_size


class Curve:
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
        """Of this process."""
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
