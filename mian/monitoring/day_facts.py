"""What a day looks like: how good the model was on it, and how its values are spread."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mian.contract import PADDING_ID, UNKNOWN_ID, Contract, Day, Field
from mian.contract.document import LENGTH_COLUMN, USER_COLUMN
from mian.evaluation.chosen_days import CHOSEN, with_days
from mian.evaluation.scoring import Scores
from mian.evaluation.split_columns import ordered_stream
from mian.metrics import UndefinedMetricError
from mian.metrics.paired import Estimate, auc_estimate, calibration_estimate, logloss_estimate, share_estimate

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Bins of a number and of the score, each with about as many rows of the first day.
NUMBER_BINS = 10
ROWS, CLICK_RATE, UNSCORED, SCORE = "rows", "click rate", "unscored", "score"
LOGLOSS, AUC, CALIBRATION = "logloss", "AUC", "calibration"


@dataclass
class DayFacts:
    """A day.

    Attributes:
        day: Which one.
        rows: Samples.
        clicks: Those with label 1.
        users: Users that they are of.
        measures: Estimates by name: :data:`ROWS` (as a logarithm), :data:`CLICK_RATE`, the model's metrics.
        unknown: By column of ids, the share that the model does not know.
        counts: By column, of the histories' lengths and of :data:`SCORE`, how many values each bin has; of ids each id is a bin.
    """

    day: dt.date
    rows: int = 0
    clicks: int = 0
    users: int = 0
    measures: dict[str, Estimate] = field(default_factory=dict)
    unknown: dict[str, Estimate] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)


@dataclass
class DayReader:
    """Reads days one after the other; the first decides the bins of numbers.

    Args:
        contract: Of the samples.
        samples: Their folder.
        known: The contract of the model: ids beyond its vocabularies are unknown.
        left_out: Names of fields whose values are not compared.
    """

    contract: Contract
    samples: str
    known: Contract
    left_out: Sequence[str]
    _edges: dict[str, Floats] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields whose values are compared."""
        return tuple(each for each in self.contract.fields if each.name not in self.left_out)

    def read(self, day: Day, scored: Scores, has_score: npt.NDArray[np.bool_] | None = None) -> DayFacts:
        """Describe a day.

        Args:
            day: One with samples.
            scored: Labels, probabilities and users of its N rows; the probability of a row without a score is not read.
            has_score: Which rows have a score, ``(N,)``; None where all do.

        Raises:
            ContractError, StreamError: Samples cannot be read.
        """
        users = np.unique(scored.users, return_inverse=True)[1].reshape(-1)
        facts = DayFacts(day.day, len(scored.labels), int(scored.labels.sum()), int(users.max()) + 1)
        facts.measures[ROWS] = _log_rows(users)
        facts.measures[CLICK_RATE] = share_estimate(scored.labels, np.ones(len(users)), users)
        if has_score is not None:
            facts.measures[UNSCORED] = share_estimate(~has_score, np.ones(len(users)), users)
            scored = Scores(scored.labels[has_score], scored.probabilities[has_score], scored.users[has_score])
        facts.measures |= dict(_metrics(scored))
        if len(scored.labels):
            facts.counts[SCORE] = self._binned(SCORE, scored.probabilities.astype(np.float64))
        return self._with_columns(facts, day, users)

    def _with_columns(self, facts: DayFacts, day: Day, users: npt.NDArray[np.int64]) -> DayFacts:
        unknown: dict[str, Counts] = {}  # by column, of each user; likewise all values that are there
        present: dict[str, Counts] = {}
        numbers: dict[str, list[Floats]] = {}
        done = 0
        for batch in ordered_stream(with_days(self.contract, [day]), self.samples, CHOSEN).epoch(0):
            lengths = batch[LENGTH_COLUMN].numpy()[:, None] if self.contract.group("behaviors") else None
            if lengths is not None:
                numbers.setdefault(LENGTH_COLUMN, []).append(lengths.astype(np.float64).reshape(-1))
            row_users = users[done : (done := done + len(batch[USER_COLUMN]))]
            for each in self.fields:
                given = batch[each.column].numpy()
                size = self._size(each)
                if size is None:
                    is_there = lengths is None or each.group != "behaviors" or np.arange(given.shape[1]) < lengths
                    numbers.setdefault(each.column, []).append(given[is_there].astype(np.float64).reshape(-1))
                    continue
                ids = np.where(given >= size, UNKNOWN_ID, given)
                found = np.bincount(ids[ids != PADDING_ID], minlength=size)
                facts.counts[each.column] = facts.counts.get(each.column, np.zeros(size, np.int64)) + found
                for sums, counted in ((unknown, ids == UNKNOWN_ID), (present, ids != PADDING_ID)):
                    rows = counted.reshape(len(ids), -1).sum(axis=1)
                    by_user = np.bincount(row_users, weights=rows, minlength=facts.users).astype(np.int64)
                    sums[each.column] = sums.get(each.column, np.zeros(facts.users, np.int64)) + by_user
        for column, values in numbers.items():
            if len(together := np.concatenate(values)):
                facts.counts[column] = self._binned(column, together)
        for column, totals in present.items():
            if totals.any():
                facts.unknown[column] = share_estimate(unknown[column], totals, np.arange(facts.users))
        return facts

    def _size(self, each: Field) -> int | None:
        """How many ids the model knows; None of a number."""
        return None if each.vocabulary is None else self.known.vocabulary(each.vocabulary).size

    def _binned(self, name: str, values: Floats) -> Counts:
        if name not in self._edges:
            self._edges[name] = np.unique(np.quantile(values, np.linspace(0.0, 1.0, NUMBER_BINS + 1)[1:-1]))
        edges = self._edges[name]
        return np.bincount(np.searchsorted(edges, values, "right"), minlength=len(edges) + 1)


def _metrics(scored: Scores) -> Iterator[tuple[str, Estimate]]:
    if not len(scored.labels):
        return
    arguments = scored.labels, scored.users, scored.probabilities
    yield LOGLOSS, logloss_estimate(*arguments)
    try:
        auc, calibration = auc_estimate(*arguments), calibration_estimate(*arguments)
    except UndefinedMetricError:
        return  # all rows have one label
    yield AUC, auc
    yield CALIBRATION, calibration


def _log_rows(users: npt.NDArray[np.int64]) -> Estimate:
    """The logarithm of the number of rows, and how far it moves with other users."""
    each = np.bincount(users).astype(np.float64)
    return Estimate(math.log(len(users)), float(np.sqrt((each**2).sum())) / len(users), len(each))


def cautious(estimate: Estimate) -> Estimate:
    """A share with a standard error of at least one user's share: that a thing was never seen does not make it impossible."""
    least = math.sqrt(max(estimate.value, 1.0 / estimate.users) / estimate.users)
    error = estimate.standard_error
    return dataclasses.replace(estimate, standard_error=least if math.isnan(error) else max(error, least))
