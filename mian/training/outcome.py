"""How a training ends."""

from __future__ import annotations

from dataclasses import dataclass

from mian.evaluation.distributed_metrics import Evaluation
from mian.evaluation.platt import PlattFit
from mian.models import ClickModel


class TrainingError(RuntimeError):
    """The training cannot go on."""


class TrainingStopped(RuntimeError):  # noqa: N818
    """The training was asked to stop. It did so after a step, with a checkpoint if it keeps any."""


@dataclass
class TrainingResult:
    """What a finished training has come to."""

    model: ClickModel
    """With the best weights; sharded tables hold this rank's rows."""
    best_step: int
    steps: int
    validation: dict[str, float]
    """Metrics of the best weights before calibration, by name."""
    test: Evaluation | None
    calibration: PlattFit | None = None
    """Of the model; None where none was asked for."""
    test_uncalibrated: Evaluation | None = None
    """Of the same weights before calibration, where the calibration changes scores."""

    @property
    def is_calibrated(self) -> bool:
        """Whether the model has a calibration."""
        return self.calibration is not None and self.calibration.left_out is None
