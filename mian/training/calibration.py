"""The calibration at the end of a training, and what is said of it."""

from __future__ import annotations

import logging

from mian.distributed.collectives import Ranks
from mian.evaluation.platt import PlattFit, calibrate
from mian.models import ClickModel
from mian.stream import SampleStream

log = logging.getLogger(__name__)


def calibrate_best(model: ClickModel, stream: SampleStream, ranks: Ranks, split: str) -> PlattFit:
    """Calibrate a model that has its best weights, and say in one line what was fitted, or why nothing was.

    Args:
        model: The model; its calibration changes.
        stream: The validation split, of this rank.
        ranks: The ranks of the training; all call this.
        split: The name of the split.

    Raises:
        StreamError: Samples cannot be read.
    """
    found = calibrate(model, stream, ranks)
    if not ranks.is_first:
        return found
    if found.left_out is not None:
        log.warning("calibration: platt is left out (scale 1, offset 0) on split %s: %s", split, found.left_out)
        return found
    log.info(
        "calibration: scale %.5f  offset %+.5f  fitted on split %s: logloss %.5f -> %.5f  calibration %.3f -> %.3f",
        found.scale,
        found.offset,
        split,
        found.logloss_before,
        found.logloss_after,
        found.calibration_before,
        found.calibration_after,
    )
    return found


def calibration_metrics(found: PlattFit) -> dict[str, float]:
    """The metrics of a run: the two numbers, and logloss and calibration of the validation split with them."""
    return {
        "calibration_scale": found.scale,
        "calibration_offset": found.offset,
        "calibrated_validation_logloss": found.logloss_after,
        "calibrated_validation_calibration": found.calibration_after,
    }
