"""What every metric asks of its input, and what it raises."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class MetricError(ValueError):
    """The input of a metric is wrong: lengths that differ, NaN, labels other than 0 and 1, probabilities outside [0, 1]."""


class UndefinedMetricError(MetricError):
    """The input is fine, but the metric has no value for it: no rows, or only one class."""


def as_labels(labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Labels of shape ``(N,)`` as booleans.

    Raises:
        UndefinedMetricError: there are none.
        MetricError: not one-dimensional, or something else than 0 and 1 is among them.
    """
    array = _one_dimensional("labels", labels)
    if not len(array):
        raise UndefinedMetricError("labels are empty: no metric is defined on no rows")
    if array.dtype.kind not in "biuf":
        raise MetricError(f"labels must be numbers 0 and 1, got an array of {array.dtype}")
    wrong = ~np.isin(array, (0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise MetricError(f"labels must be 0 or 1: row {row} has {array[row]!r} ({int(wrong.sum())} such rows)")
    return array.astype(bool)


def as_scores(scores: npt.ArrayLike, rows: int) -> npt.NDArray[np.float64]:
    """Scores of shape ``(rows,)`` in float64; infinities are allowed.

    Raises:
        MetricError: another shape, or NaN among them.
    """
    array = _one_dimensional("scores", scores).astype(np.float64)
    _check_length("scores", array, rows)
    wrong = np.isnan(array)
    if wrong.any():
        raise MetricError(f"scores hold NaN in {int(wrong.sum())} of {rows} rows, the first is row {int(np.argmax(wrong))}")
    return array


def as_probabilities(probabilities: npt.ArrayLike, rows: int) -> npt.NDArray[np.float64]:
    """Probabilities of shape ``(rows,)`` in float64.

    Raises:
        MetricError: another shape, NaN, or a value outside [0, 1]; logits were given, perhaps.
    """
    array = as_scores(probabilities, rows)
    wrong = (array < 0) | (array > 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise MetricError(f"probabilities must be in [0, 1]: row {row} has {array[row]!r} ({int(wrong.sum())} such rows)")
    return array


def as_groups(users: npt.ArrayLike, rows: int) -> npt.NDArray[np.int64]:
    """Users of shape ``(rows,)``, of any type that sorts, as numbers from 0 to their count minus 1.

    Raises:
        MetricError: another shape.
    """
    array = _one_dimensional("users", users)
    _check_length("users", array, rows)
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _one_dimensional(name: str, values: npt.ArrayLike) -> npt.NDArray[np.generic]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise MetricError(f"{name} must be of shape (N,), got {array.shape}")
    return array


def _check_length(name: str, array: npt.NDArray[np.generic], rows: int) -> None:
    if len(array) != rows:
        raise MetricError(f"{name} and labels must be of one length: {len(array)} {name}, {rows} labels")
