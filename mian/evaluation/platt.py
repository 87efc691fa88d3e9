"""Platt scaling over all ranks: ``scale * logit + offset`` by maximum likelihood on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mian.distributed.collectives import Ranks
from mian.evaluation.scoring import batches_of_all, logits
from mian.models import UNCALIBRATED, ClickModel
from mian.stream import SampleStream

FloatArray = npt.NDArray[np.float64]

_CHUNK = 1 << 18
"""So many rows are worked on in float64 at a time."""
_STEPS, _TOLERANCE = 100, 1e-9
"""Newton's steps at most, and the one, in the parameters of standardized logits, that is the last."""


@dataclass(frozen=True)
class PlattFit:
    """A fitted calibration; the same on all ranks. Figures that are undefined, such as those of no rows, are NaN.

    Attributes:
        scale: Greater than 0; 1 where the calibration is left out.
        offset: 0 where it is left out.
        logloss_before: Mean logloss of the rows that it is fitted on, in nats, without it.
        logloss_after: The same with it.
        calibration_before: Mean probability over click rate of these rows, without it.
        calibration_after: The same with it.
        left_out: Why there is none; None if there is one.
    """

    scale: float
    offset: float
    logloss_before: float
    logloss_after: float
    calibration_before: float
    calibration_after: float
    left_out: str | None = None


def calibrate(model: ClickModel, stream: SampleStream, ranks: Ranks) -> PlattFit:
    """Fit a calibration on a split, and give it to the model. Each rank scores and holds its rows, 5 bytes each; all ranks call this.

    Args:
        model: The model with its final weights. An earlier calibration of it is replaced.
        stream: The split, of this rank.
        ranks: The ranks.

    Raises:
        StreamError: Samples cannot be read.
    """
    model.set_calibration(*UNCALIBRATED.values())
    labels, values = [np.empty(0, np.bool_)], [np.empty(0, np.float32)]
    with closing(logits(model, stream, batches_of_all(model, stream, ranks))) as batches:
        for batch in batches:
            labels.append(batch.labels == 1)
            values.append(batch.logits.cpu().numpy())
    found = fit_platt(np.concatenate(values), np.concatenate(labels), ranks)
    model.set_calibration(found.scale, found.offset)
    return found


def fit_platt(values: npt.NDArray[np.float32], clicked: npt.NDArray[np.bool_], ranks: Ranks) -> PlattFit:
    """Fit scale and offset by Newton's method (Platt 1999, without its changed targets), in float64; all ranks call this.

    Each step sums six numbers over the ranks. The result does not depend on the number of ranks except for rounding.

    Args:
        values: Logits of this rank's rows, float ``(N,)``. N may differ between ranks.
        clicked: Which of the rows have label 1, ``(N,)``.
        ranks: The ranks.
    """
    rows = _Rows(values, clicked, ranks)
    if rows.left_out is not None:
        return _left_out(rows, rows.left_out)
    fitted = _newton(lambda parameters: rows.sums(rows.center, rows.spread, parameters), np.array([rows.center, rows.spread]))
    if fitted is None:
        return _left_out(rows, f"Newton's method has no result after {_STEPS} steps")
    scale = fitted[1] / rows.spread
    offset = fitted[0] - scale * rows.center
    scale, offset = float(np.float32(scale)), float(np.float32(offset))  # as the model keeps them
    if not (math.isfinite(scale) and math.isfinite(offset)):
        return _left_out(rows, "its numbers are too large for float32")
    if scale <= 0:
        return _left_out(rows, f"rows that were clicked have lower scores than others (scale {scale:.3g})")
    before, after = rows.figures(1.0, 0.0), rows.figures(scale, offset)
    return PlattFit(scale, offset, before[0], after[0], before[1], after[1])


class _Rows:
    """The rows of all ranks, of which this rank holds its own.

    Attributes:
        count: How many there are on all ranks.
        clicks: How many of them were clicked.
        center: The mean of their logits.
        spread: The standard deviation of their logits.
        left_out: Why no calibration can be fitted on them; None if one can.
    """

    def __init__(self, values: npt.NDArray[np.float32], clicked: npt.NDArray[np.bool_], ranks: Ranks) -> None:
        self._values, self._clicked, self._ranks = values, clicked, ranks
        self.center, self.spread = 0.0, 1.0
        own = np.array([len(values), clicked.sum(), values.sum(dtype=np.float64)])
        self.count, self.clicks, total = self._over_ranks(own).tolist()
        self.left_out = self._why_not(total)
        if self.left_out is None:
            self.center = total / self.count
            deviations = np.array([sum(np.square(chunk - self.center).sum() for chunk, _ in self._chunks())])
            self.spread = math.sqrt(self._over_ranks(deviations).item() / self.count)

    def _chunks(self) -> Iterator[tuple[FloatArray, npt.NDArray[np.bool_]]]:
        for first in range(0, len(self._values), _CHUNK):
            rows = slice(first, first + _CHUNK)
            yield self._values[rows].astype(np.float64), self._clicked[rows]

    def _over_ranks(self, sums: FloatArray) -> FloatArray:
        total: FloatArray = np.sum(self._ranks.gather_objects(sums), axis=0)
        return total

    def _why_not(self, total: float) -> str | None:
        ranges = self._ranks.gather_objects([_range(self._values[~self._clicked]), _range(self._values[self._clicked])])
        (low_other, high_other), (low_click, high_click) = (
            (min(low for low, _ in of_label), max(high for _, high in of_label)) for of_label in zip(*ranges, strict=True)
        )
        if not self.count:
            return "the split has no rows"
        if self.clicks in (0, self.count):
            return f"all {self.count:,.0f} rows have label {int(self.clicks > 0)}"
        if not math.isfinite(total):
            return "a logit is not finite"
        if max(high_other, high_click) == min(low_other, low_click):
            return "all rows have one score"
        if high_other <= low_click or high_click <= low_other:
            return "scores separate the rows that were clicked from the others, so that no finite scale is the best"
        return None

    def sums(self, center: float, spread: float, parameters: FloatArray) -> FloatArray:
        """Over all ranks, of ``parameters[0] + parameters[1] * u`` with standardized logits u, for Newton's method.

        Returns:
            The logloss; its two first derivatives; its second derivatives by offset, offset and scale, and scale. float64 ``(6,)``.
        """
        own = np.zeros(6)
        with np.errstate(invalid="ignore"):  # of logits that are not finite
            for values, clicked in self._chunks():
                units = (values - center) / spread
                z = parameters[0] + parameters[1] * units
                magnitude = np.exp(-np.abs(z))
                losses = np.log1p(magnitude) + np.where(clicked, np.maximum(-z, 0), np.maximum(z, 0))
                probabilities = np.where(z >= 0, 1, magnitude) / (1 + magnitude)
                errors, weights = probabilities - clicked, magnitude / np.square(1 + magnitude)
                parts = (losses, errors, errors * units, weights, weights * units, weights * np.square(units))
                own += [part.sum() for part in parts]
        return self._over_ranks(own)

    def figures(self, scale: float, offset: float) -> tuple[float, float]:
        """Mean logloss, and mean probability over click rate, with a calibration."""
        loss, surplus = self.sums(0.0, 1.0, np.array([offset, scale]))[:2].tolist()
        return (
            loss / self.count if self.count else math.nan,
            (surplus + self.clicks) / self.clicks if self.clicks else math.nan,
        )


def _range(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (math.inf, -math.inf)


def _newton(sums: Callable[[FloatArray], FloatArray], parameters: FloatArray) -> FloatArray | None:
    """Find where the loss is least; a step after which it is larger is halved. None if that is not found."""
    found = sums(parameters)
    step = _step(found)
    for _ in range(_STEPS):
        if step is None or not np.isfinite(step).all():
            return None
        if np.abs(step).max() <= _TOLERANCE * (1 + np.abs(parameters).max()):
            return parameters - step
        after = sums(parameters - step)
        if after[0] <= found[0] * (1 + 1e-12):
            parameters, found = parameters - step, after
            step = _step(found)
        else:
            step = step / 2
    return None


def _step(found: FloatArray) -> FloatArray | None:
    """Newton's step of :meth:`_Rows.sums`; None where there is no single one."""
    _, *gradient, corner, side, other_corner = found.tolist()
    try:
        return np.linalg.solve(np.array([[corner, side], [side, other_corner]]), np.array(gradient))
    except np.linalg.LinAlgError:
        return None


def _left_out(rows: _Rows, why: str) -> PlattFit:
    logloss, calibration = rows.figures(1.0, 0.0)
    return PlattFit(1.0, 0.0, logloss, logloss, calibration, calibration, why)
