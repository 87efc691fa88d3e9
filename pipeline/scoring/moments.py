"""Candidates of one user at one moment, brought together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from mian.contract import Contract
from mian.contract.document import LENGTH_COLUMN
from pipeline.arrays import IntArray
from pipeline.scoring.scorer import Columns, Scorer

#: Moments with fewer candidates are scored as whole rows, many moments at a time. A call for one user costs about as much as so many
#: rows of a large batch: ``docs/how-to/score-in-batch.md`` has the figures.
SMALLEST_GROUP = 48
#: So many rows, or candidates, are scored at a time: what memory is taken for.
ROWS_PER_BATCH = 4096


def group_starts(keys: Iterable[npt.NDArray[np.generic]], count: int) -> IntArray:
    """Where runs of equal rows begin.

    Args:
        keys: columns of N rows, ``(N,)`` or ``(N, T)``: a run's rows are equal in all of them.
        count: N.

    Returns:
        The first row of each run, in order.
    """
    alike = np.ones(max(count - 1, 0), np.bool_)
    for key in keys:
        places = np.flatnonzero(alike)  # later keys are compared where all before are equal
        equal = key[places] == key[places + 1]
        alike[places] = equal if equal.ndim == 1 else equal.all(axis=1)
    return np.flatnonzero(np.concatenate([np.ones(min(count, 1), np.bool_), ~alike]))


def score_moments(
    scorer: Scorer, contract: Contract, columns: Columns, moments: IntArray, smallest_group: int
) -> npt.NDArray[np.float64]:
    """Score rows; what candidates of a user and a moment share is computed once for them.

    A moment's candidates share the computation as long as their encoded history and profile are equal. Recorded histories, say, may
    differ by impression: then there are several groups, each with its own. Which rows form a group depends on the moment's rows alone.

    Args:
        scorer: the model.
        contract: its contract.
        columns: of N rows, see :data:`pipeline.scoring.scorer.Columns`; the rows of a moment lie one after the other.
        moments: the number of each row's user and time, ``(N,)``.
        smallest_group: smaller groups are scored as whole rows; 0 scores all rows so.

    Returns:
        Float64 ``(N,)``.
    """
    count = len(moments)
    scores = np.empty(count, np.float64)
    own = [field.column for field in contract.fields if field.group in ("candidate", "context")]
    shared = [LENGTH_COLUMN, *(field.column for field in contract.fields if field.group in ("user", "behaviors"))]
    context = [field.column for field in contract.group("context")]
    alone = np.ones(count, np.bool_)
    if smallest_group:
        starts = group_starts([moments, *(columns[name] for name in shared)], count)
        for first, end in _large(starts, count, smallest_group):
            alone[first:end] = False
            user = {name: columns[name][first : first + 1] for name in (*shared, *context)}
            for begin, stop in _parts(first, end):
                scores[begin:stop] = scorer.candidates(user, {name: columns[name][begin:stop] for name in own})
    places = np.flatnonzero(alone)
    for begin, stop in _parts(0, len(places)):
        part = places[begin:stop]
        scores[part] = scorer.rows({name: column[part] for name, column in columns.items()})
    return scores


def _large(starts: IntArray, count: int, smallest: int) -> Iterator[tuple[int, int]]:
    ends = np.append(starts[1:], count)
    large = ends - starts >= smallest
    return zip(starts[large].tolist(), ends[large].tolist(), strict=True)


def _parts(first: int, end: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + ROWS_PER_BATCH, end)) for begin in range(first, end, ROWS_PER_BATCH))
