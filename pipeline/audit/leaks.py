"""Tests whether values that a sample lacks tell its label, and more so in the training days than in held-out days.

There are three tests. All compare rows of the same day, so that rates that change with the calendar have no effect. All take users, and
not rows, as independent.

- For each indicator (a column is unknown or missing, or the history has a certain length): how much the indicator moves the label's rate
  in the training days, compared with the held-out days. Example: a vocabulary that counts clicks moves the rate in the training days
  alone.
- For each indicator: whether the label is certain, or nearly certain, in more rows than chance explains. Example: if items are drawn as
  negatives before they exist, these negatives are the only rows without a brand, on held-out days too.
- A logistic regression on all indicators, fitted on half of the users of the training days: its AUC on the other half, compared with its
  AUC on the held-out days.

Real logs drift, and with enough rows any drift is larger than the noise. So a difference has to exceed a tolerance by more than the noise.
Holm's procedure keeps the chance of any false finding in a data set below :data:`ALPHA`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression

from pipeline.audit.findings import Finding
from pipeline.audit.indicators import BoolArray, FloatArray, Indicator, IndicatorRows, IntArray

#: The chance of any false finding in a data set without a leak.
ALPHA = 0.01
#: How much more an indicator may move the label in the training days, as a difference of log odds near the rate of all rows.
MOST_EFFECT = 0.25
#: How much more the model's AUC may be there.
MOST_AUC = 0.02
#: An indicator's label is nearly certain where its odds are so many times those of the other rows, or a part of them.
CERTAIN_ODDS = 50.0


@dataclass(frozen=True)
class _Test:
    """A finding, should its chance be small enough."""

    chance: float
    finding: Finding


def find_leaks(rows: IndicatorRows) -> list[Finding]:
    """What the indicators tell that they should not; empty where there are no held-out days or no training days."""
    if rows.held_out.all() or not rows.held_out.any():
        return []
    tests = [*_differences(rows), *_certainties(rows), *_model(rows)]
    tests.sort(key=lambda test: test.chance)
    found = []
    for place, test in enumerate(tests):  # Holm 1979
        if test.chance > ALPHA / (len(tests) - place):
            break
        found.append(test.finding)
    return found


@dataclass(frozen=True)
class _Effect:
    """How much an indicator moves the label within days.

    ``size``: the difference of rates over ``q (1 - q)``, with q the rate of the larger side: about a difference of log odds.
    ``influence``: of each user on it, shape ``(users,)``. ``floor``: the least variance, that of independent rows.
    """

    size: float
    influence: FloatArray
    floor: float
    on_rate: float
    off_rate: float
    on_rows: int


def _effect(on: BoolArray, rows: IndicatorRows, chosen: BoolArray) -> _Effect | None:
    """The effect in some rows; None where the indicator is the same in all rows of each day."""
    x, y, w = on[chosen].astype(np.float64), rows.labels[chosen], rows.weights[chosen]
    days, users = rows.days[chosen], rows.users[chosen]
    count = np.bincount(days, w)
    count[count == 0] = 1.0
    dx = x - (np.bincount(days, w * x) / count)[days]
    dy = y - (np.bincount(days, w * y) / count)[days]
    spread = float((w * dx * dx).sum())
    if spread < 1e-9:
        return None
    on_rate, off_rate = (float((w * y * side).sum() / max((w * side).sum(), 1e-12)) for side in (x, 1 - x))
    larger, size = (on_rate, (w * x).sum()) if (w * x).sum() > (w * (1 - x)).sum() else (off_rate, (w * (1 - x)).sum())
    q = float(np.clip(larger, 0.5 / size, 1 - 0.5 / size))
    scale = spread * q * (1 - q)
    parts = w * dx * dy / scale
    floor = float((w * w * dx * dx).sum()) * q * (1 - q) / scale**2
    return _Effect(
        float(parts.sum()),
        np.bincount(users, parts, _users(rows)).astype(np.float64),
        floor,
        on_rate,
        off_rate,
        int(on[chosen].sum()),
    )


def _differences(rows: IndicatorRows) -> Iterator[_Test]:
    for indicator in rows.indicators:
        train, held_out = (_effect(indicator.on, rows, part) for part in (~rows.held_out, rows.held_out))
        if train is None or held_out is None:
            continue
        more = np.sign(train.size) * (train.size - held_out.size)
        # the sign is chosen by the data, so both sides count
        chance = 2 * _tail(more - MOST_EFFECT, train.influence - held_out.influence, train.floor + held_out.floor)
        samples = (
            f"{indicator.words} in {train.on_rows:,} rows of the training days: label rate {_rates(train)}; "
            f"in {held_out.on_rows:,} rows of held-out days: {_rates(held_out)}"
        )
        logs = "that what is missing tells the label no better in training days than later"
        yield _Test(min(1.0, chance), Finding("leak", samples, logs, column=indicator.column))


def _rates(effect: _Effect) -> str:
    return f"{effect.on_rate:.2%}, {effect.off_rate:.2%} in the others"


def _tail(excess: float, influence: FloatArray, floor: float) -> float:
    """The chance of an excess at least as great where there is none: Student's t, its degrees of freedom by how few users matter."""
    squares = influence**2
    total = float(squares.sum())
    degrees = max(1.0, total**2 / max(float((squares**2).sum()), 1e-300)) if total > 0 else 1.0
    error = max(total, floor) ** 0.5
    return float(stats.t.sf(excess / error, degrees)) if error > 0 else 1.0


def _certainties(rows: IndicatorRows) -> Iterator[_Test]:
    for indicator in rows.indicators:
        every = np.ones(len(rows.labels), np.bool_)
        for part, words in ((~rows.held_out, "the training days"), (rows.held_out, "held-out days"), (every, "all days")):
            on, off = part & indicator.on, part & ~indicator.on
            if not on.any() or not off.any():
                continue
            impressions, clicked = int(on.sum()), int(rows.labels[on].sum())
            if rows.drawn and rows.held_out[part].any() and 2 * clicked > impressions:
                continue  # a drawn negative had an event before, a positive may be the first of its item: what is new is mostly positive
            rate = _expected(rows, on, off)
            # rows of one user, or of one user and day, stand and fall together
            units = len(
                np.unique(rows.users[on] if indicator.per_user else rows.users[on] * (1 + rows.days.max()) + rows.days[on])
            )
            chance = _certainty(indicator, impressions, clicked, units, rate)
            if chance < 1.0:
                samples = f"{indicator.words} in {impressions:,} rows of {words}, {clicked:,} of them with label 1"
                logs = f"a label rate of {rate:.2%} in the other rows: this tells the label for certain, or nearly"
                yield _Test(chance, Finding("leak", samples, logs, column=indicator.column))


def _expected(rows: IndicatorRows, on: BoolArray, off: BoolArray) -> float:
    """The rate of the other rows of the same days."""
    size = int(rows.days.max()) + 1
    all_off = float(rows.labels[off].mean())
    impressions = np.bincount(rows.days[off], minlength=size)
    rates = np.where(impressions > 0, np.bincount(rows.days[off], rows.labels[off], size) / np.maximum(impressions, 1), all_off)
    return float(rates[rows.days[on]].mean())


def _certainty(indicator: Indicator, impressions: int, clicked: int, units: int, rate: float) -> float:
    """The chance of so few positives, or negatives, by the rate of the others; 1 where the label is not nearly certain."""
    if not 0 < rate < 1:
        return 1.0
    few = min(clicked, impressions - clicked)
    chance_of_few = rate if clicked <= impressions - clicked else 1 - rate
    odds = few / (impressions - few) if few < impressions else 1.0
    nearly = not indicator.in_history and odds * CERTAIN_ODDS < chance_of_few / (1 - chance_of_few)
    if few and not nearly:
        return 1.0
    return min(1.0, 2 * float(stats.binom.cdf(np.ceil(few * units / impressions), units, chance_of_few)))


def _model(rows: IndicatorRows) -> Iterator[_Test]:
    used = [i for i in rows.indicators if i.on.any() and not i.on.all()]
    half = (rows.users * np.int64(0x9E3779B1) >> 7) % 2 == 0
    fitted, other = ~rows.held_out & half, ~rows.held_out & ~half
    classes = [np.unique(rows.labels[part]) for part in (fitted, other, rows.held_out)]
    if not used or any(len(found) < 2 for found in classes):
        return
    features = np.stack([_centered(i.on.astype(np.float32), rows) for i in used], axis=1)
    model = LogisticRegression(C=1.0, max_iter=200)
    model.fit(features[fitted], rows.labels[fitted], rows.weights[fitted])
    score = features @ model.coef_[0].astype(np.float32)
    train, train_influence = _auc(score, rows, other)
    held_out, held_out_influence = _auc(score, rows, rows.held_out)
    chance = _tail(train - held_out - MOST_AUC, train_influence - held_out_influence, 0.0)
    names = ", ".join(_heaviest(used, rows, model.coef_[0], features))
    samples = (
        f"what is missing, unknown or short: a model of these alone, fitted on half of the training days' users, has AUC {train:.4f} on "
        f"the other half and {held_out:.4f} on held-out days"
    )
    yield _Test(chance, Finding("leak", samples, "about the same AUC on both", column=names))


def _centered(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], rows: IndicatorRows) -> FloatArray:
    means = np.bincount(rows.days, values) / np.maximum(np.bincount(rows.days), 1)
    centered: FloatArray = values - means[rows.days].astype(np.float32)
    return centered


def _heaviest(used: Sequence[Indicator], rows: IndicatorRows, weights: FloatArray, features: FloatArray) -> list[str]:
    """Up to three columns by which the model tells most more in the training days."""
    gain: dict[str, float] = {}
    for place, indicator in enumerate(used):
        sides = [
            float(np.mean(features[part, place] * (rows.labels[part] - rows.labels[part].mean())))
            for part in (~rows.held_out, rows.held_out)
        ]
        gain[indicator.column] = gain.get(indicator.column, 0.0) + float(weights[place]) * (sides[0] - sides[1])
    least = max(gain.values()) / 2
    return [column for column in sorted(gain, key=lambda column: -gain[column])[:3] if gain[column] >= least > 0]


def _auc(score: FloatArray, rows: IndicatorRows, chosen: BoolArray) -> tuple[float, FloatArray]:
    """The share of pairs of a positive and a negative of one day that are in order, and each user's influence on it."""
    days = np.unique(rows.days[chosen], return_inverse=True)[1].reshape(-1)
    positive = rows.labels[chosen] == 1
    level = np.unique(score[chosen], return_inverse=True)[1].reshape(-1)
    positives, negatives = np.bincount(days, positive), np.bincount(days, ~positive)
    below = np.where(
        positive, _below(days, level, ~positive), positives[days] - _below(days, level, positive)
    )  # of the other class: ranked lower for a positive, higher for a negative
    pairs = float((positives * negatives).sum())
    if not pairs:
        return 0.5, np.zeros(_users(rows))
    auc = float(below[positive].sum()) / pairs
    others = np.where(positive, negatives[days], positives[days])
    influence = np.bincount(rows.users[chosen], (below - auc * others) / pairs, _users(rows)).astype(np.float64)
    return auc, influence


def _below(days: IntArray, level: IntArray, counted: BoolArray) -> FloatArray:
    """For each row how many counted ones of its day have a lower level, those of the same one half."""
    keys = days * (int(level.max()) + 1) + level
    start = days * (int(level.max()) + 1)
    among = np.sort(keys[counted])
    low, high = (np.searchsorted(among, keys, side) for side in ("left", "right"))
    first = np.searchsorted(among, start, "left")
    middle: FloatArray = (low + high) / 2 - first
    return middle


def _users(rows: IndicatorRows) -> int:
    return int(rows.users.max()) + 1
