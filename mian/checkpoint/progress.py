"""How far a training is."""

from __future__ import annotations

import math

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from mian.stream import EpochSegment


class Progress(BaseModel):
    """All of a training's state that is no tensor; it goes into checkpoints."""

    model_config = ConfigDict(extra="forbid")

    planned_samples: int
    """So many the learning rate's schedule counts on."""
    run_id: str | None = None
    """The MLflow run."""
    parent: str | None = None
    """The model that the training began with: a :class:`mian.contract.lineage.Parent` as JSON."""
    step: int = 0
    samples: int = 0
    """Over all ranks."""
    epoch: int = 0
    segments: list[EpochSegment] = Field([], validation_alias=AliasChoices("segments", "legs"))
    """Parts of this epoch that were trained by other numbers of ranks or with other batch sizes; see
    :meth:`mian.stream.SampleStream.epoch`. Checkpoints of earlier releases call it ``legs``."""
    step_of_epoch: int = 0
    """Since the segments."""
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
    def completed_fraction(self) -> float:
        """How much of the planned samples is done, 0 to 1."""
        return min(1.0, self.samples / self.planned_samples)

    @property
    def epoch_of_step(self) -> int:
        """The epoch that the step done last was of."""
        begun = self.step_of_epoch > 0 or bool(self.segments)
        return self.epoch if begun else max(0, self.epoch - 1)

    def step_done(self) -> None:
        """Count a step of all ranks."""
        self.step += 1
        self.step_of_epoch += 1
        self.samples += self.world_size * self.batch_size

    def epoch_done(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self.segments, self.step_of_epoch = [], 0

    def move_to(self, world_size: int, batch_size: int) -> None:
        """Go on with another number of ranks, or batches of another size: what is left of the epoch is shared out anew."""
        if (world_size, batch_size) != (self.world_size, self.batch_size):
            if self.step_of_epoch:
                self.segments = [*self.segments, EpochSegment(self.world_size, self.batch_size, self.step_of_epoch)]
            self.step_of_epoch, self.world_size, self.batch_size = 0, world_size, batch_size
