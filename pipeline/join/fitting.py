"""What vocabularies and transforms are made from: counts of values, and sums of numbers, among the rows of some users."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mian.contract.encoder import fitted_on, transformed
from pipeline.arrays import IntArray
from pipeline.io.arrow_ipc import ipc_bytes
from pipeline.join.blobs import Column
from pipeline.join.occurrences import Occurrences
from pipeline.join.plan import RawField


class Fitting:
    """Counts the values of each vocabulary, and sums the numbers of each numeric field."""

    def __init__(self) -> None:
        self._vocabularies: dict[str, Occurrences] = defaultdict(Occurrences)
        self._moments: dict[str, tuple[int, float, float]] = {}

    def add(self, field: RawField, column: Column, rows: IntArray, users: IntArray, impressions: IntArray | None) -> None:
        """Add a field; the arguments are those of :meth:`pipeline.join.occurrences.Occurrences.add`."""
        if isinstance(column, np.ndarray):
            self._moments[field.column] = _moments(column[rows[rows >= 0]] if len(column) else column, field.log)
        else:
            self._vocabularies[field.vocabulary or ""].add(column, rows, users, impressions)

    def counts(self) -> bytes | None:
        """Columns ``vocabulary``, ``value`` and ``count``, packed; None where no field has a vocabulary."""
        if not self._vocabularies:
            return None
        return ipc_bytes(pa.concat_tables(_named(name, values.counts()) for name, values in self._vocabularies.items()))

    def moments(self) -> bytes | None:
        """For each numeric field how many numbers, their mean, and the sum of squared differences, as JSON; None where there is none."""
        return json.dumps(self._moments).encode() if self._moments else None


def _named(vocabulary: str, counts: pa.Table) -> pa.Table:
    names = pa.array([vocabulary], pa.string()).take(pa.array(np.zeros(counts.num_rows, np.int64)))
    return pa.table({"vocabulary": names, "value": counts["value"], "count": counts["count"]})


def _moments(values: npt.NDArray[np.float64], log: bool) -> tuple[int, float, float]:
    """How many numbers that float32 can hold, their mean, and the sum of squared differences from it."""
    finite = fitted_on(transformed("log" if log else "identity", values))
    if not len(finite):
        return 0, 0.0, 0.0
    mean = float(finite.mean())
    return len(finite), mean, float(((finite - mean) ** 2).sum())
