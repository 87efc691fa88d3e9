"""What to look at first: a few rules, each of which says in a sentence what it found and why it matters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.describe.dataset_summary import DatasetSummary, DayFacts
from pipeline.describe.drift import SHIFT
from pipeline.describe.formatting import counted, listed, number, percent, shortened, spans

MOST_UNKNOWN = 0.2
MOST_QUARANTINED = 0.001
MOST_EMPTY = 0.5
LEAST_MATCHED = 0.5
MOST_EARLY = 0.01
#: What finds what, by source.
_MATCHED = {
    "clicks": "clicks have an impression",
    "items": "impressions have a row of items",
    "users": "impressions have a row of users",
    "behaviors": "behaviors have a row of items",
    "lookups": "impressions have a row of {}",
}
MOST_UNDRAWN = 0.01
#: A day's label rate is odd where it lies so many times its usual spread from the median of all days, and by a tenth of it.
ODD_RATE = 5.0
LEAST_ODD = 0.1
#: Days below which nobody can say what is usual.
ENOUGH_DAYS = 7
#: A normal distribution's standard deviation, of its median absolute deviation.
SIGMA_OF_MAD = 1.4826


@dataclass(frozen=True)
class DataWarning:
    """A sentence or two; ``serious`` asks to be looked at, anything else explains what looks odd and is not."""

    text: str
    serious: bool = True


def find_warnings(description: DatasetSummary) -> list[DataWarning]:
    """All that the rules find, serious warnings first."""
    found = [warning for rule in RULES for warning in rule(description)]
    return sorted(found, key=lambda warning: not warning.serious)


def _missing(description: DatasetSummary) -> Iterator[DataWarning]:
    for split in description.splits:
        if split.missing:
            built = "none is built" if not split.days else f"missing: {spans(split.missing)}"
            yield DataWarning(
                f"Split {split.name} lacks {len(split.missing):,} of {counted(len(split.missing) + len(split.days), 'day')} "
                f"({built}). Build them with jobs/build_samples.py, or change the split."
            )


def _open(description: DatasetSummary) -> Iterator[DataWarning]:
    days = [day.day.day for day in description.days if not day.day.final]
    if days:
        yield DataWarning(
            f"{counted(len(days), 'day')} {_is(days)} not final: {spans(days)}. The attribution window was not over, so "
            "late clicks are still missing and label rates are too low. Build again once the click log is whole."
        )


def _shifted(description: DatasetSummary) -> Iterator[DataWarning]:
    far = []
    usual: dict[str, list[str]] = defaultdict(list)
    for split in description.held_out:
        name, odd = split.name, []
        drifts = [
            (-c.drift.splits[name], c.field.column, c.drift) for c in description.columns if c.drift and name in c.drift.splits
        ]
        for _, column, drift in sorted(drifts, key=lambda found: found[:2]):
            if drift.is_shift(name):
                reach = f" (runs of training days reach {drift.usual[name]:.2f})" if name in drift.usual else ""
                odd.append(f"{column} {drift.splits[name]:.2f}{reach}")
            elif drift.splits[name] > SHIFT:
                usual[column].append(name)
        if odd:
            far.append(f"in split {name} {shortened(odd)}")
    if far:
        yield DataWarning(
            f"Drift against the training days, of whole splits: {'; '.join(far)}. A stability index above {SHIFT} means other values "
            "than the model was trained on. Look for a change in the log, or train on later days."
        )
    if usual:
        splits = listed(list(dict.fromkeys(name for names in usual.values() for name in names)))
        yield DataWarning(
            f"{shortened(list(usual))}: the stability index is above {SHIFT} in {splits}, but as many training days in a row lie as far "
            "from the training days as a whole. The calendar does that where splits are short.",
            serious=False,
        )


def _unknown(description: DatasetSummary) -> Iterator[DataWarning]:
    high = sorted((-share, c.field.column, name) for c in description.columns for name, share in c.unknown.items())
    worst: dict[str, str] = {}
    for share, column, name in high:
        if -share > MOST_UNKNOWN:
            worst.setdefault(column, f"{column} {percent(-share)} in split {name}")
    if worst:
        yield DataWarning(
            f"Unknown ids and missing numbers, each column's worst split: {shortened(list(worst.values()))}. These values are missing in "
            "the log or not what the field's expression takes, are rare, or came after the vocabularies were made; the model knows "
            "nothing of them."
        )


def _quarantined(description: DatasetSummary) -> Iterator[DataWarning]:
    broken: dict[str, int] = defaultdict(int)
    rows: dict[str, int] = defaultdict(int)
    for day in description.days:
        if day.day.quality is not None:
            rows["log.impressions"] += day.day.quality.log_rows
            rows["log.clicks"] += day.day.quality.clicks or 0
            for rule, count in day.day.quality.quarantined.items():
                broken[rule] += count
    many = []
    for rule, count in sorted(broken.items(), key=lambda item: -item[1]):
        of = rows.get(rule.partition(":")[0], 0)
        if of and count > MOST_QUARANTINED * of:
            many.append(f"“{rule}” {number(count)} ({percent(count / of, 2)} of its log)")
    if many:
        yield DataWarning(
            f"Rows that broke a rule and were left out: {shortened(many, 3)}. The quarantine files have each of them with its reason."
        )


def _unmatched(description: DatasetSummary) -> Iterator[DataWarning]:
    rows: dict[str, int] = defaultdict(int)
    found: dict[str, int] = defaultdict(int)
    early = 0
    for day in description.days:
        if day.day.quality is not None:
            early += day.day.quality.early_clicks or 0
            for source, matched in day.day.quality.matched.items():
                rows[source] += matched.rows
                found[source] += matched.found
    few = [
        f"{percent(found[source] / n)} of {number(n)} {_MATCHED[source.partition('.')[0]].format(source)}"
        for source, n in rows.items()
        if n and found[source] < LEAST_MATCHED * n
    ]
    if few:
        yield DataWarning(
            f"Keys that rarely meet: {listed(few)}. Are ids written in one way in all logs, and does each log hold all of its rows? "
            "What should be there at least can be said with quality.min_matched."
        )
    clicks = rows.get("clicks", 0)
    if clicks and early > MOST_EARLY * clicks:
        yield DataWarning(
            f"{number(early)} of {number(clicks)} clicks come before their impression: no impression of theirs is at or before them, but "
            "a later one is. Is the clock of one of the logs slow, or its time zone another?"
        )


def _undrawn(description: DatasetSummary) -> Iterator[DataWarning]:
    each = description.contract.label.negatives_per_positive
    if not each:
        return
    days = [day for day in description.days if day.day.quality is not None and day.day.quality.undrawn]
    lost = sum(day.day.quality.undrawn or 0 for day in days if day.day.quality is not None)
    asked = sum(day.day.positives for day in description.days) * each
    if lost > MOST_UNDRAWN * asked:
        yield DataWarning(
            f"{number(lost)} negatives could not be drawn ({percent(lost / asked, 2)} of those asked for), on "
            f"{counted(len(days), 'day')}: {spans([day.day.day for day in days])}. Too few items had an event shortly before, so label "
            "rates are too high there. Begin the splits later than the log, or enlarge log.negatives.window_hours."
        )


def _clipped(description: DatasetSummary) -> Iterator[DataWarning]:
    cut: dict[str, int] = defaultdict(int)
    for day in description.days:
        for column, count in (day.day.quality.clipped if day.day.quality is not None else {}).items():
            cut[column] += count
    if cut:
        worst = [f"{column} {number(count)}" for column, count in sorted(cut.items(), key=lambda item: -item[1])]
        yield DataWarning(
            f"Numbers that were cut because they are infinite or more than a million deviations from the mean: {shortened(worst)}. "
            "Look for a wrong unit, a sentinel such as 1e38 or a division by 0; make those values null in the field's expression."
        )


def _empty(description: DatasetSummary) -> Iterator[DataWarning]:
    high = [split for split in description.splits if split.empty is not None and split.empty > MOST_EMPTY]
    if high:
        parts = listed([f"{percent(split.empty)} of split {split.name}" for split in high])
        yield DataWarning(
            f"Empty histories: {parts}. For these samples the model has no behavior to attend to. "
            "Is the behavior log whole, and does it reach back before the first day?"
        )


def _odd_rates(description: DatasetSummary) -> Iterator[DataWarning]:
    odd, median = odd_rates(description.days)
    if odd:
        examples = [f"{day.day.day} ({percent(day.rate)})" for day in odd]
        yield DataWarning(
            f"Label rate far from the median of all days, {percent(median)}: {shortened(examples)}. "
            "Is the click log whole for these days, or did something special happen?"
        )


def odd_rates(days: Sequence[DayFacts]) -> tuple[list[DayFacts], float]:
    """Final days whose label rate is unlike the others', and the median of all.

    The spread is the larger of the binomial standard error and that of the days themselves, by the median absolute deviation: rates
    that move with the weekday are not odd.
    """
    known = [(day, day.rate) for day in days if day.day.final and day.rate is not None]
    if len(known) < ENOUGH_DAYS:
        return [], math.nan
    rates = np.array([rate for _, rate in known])
    median = float(np.median(rates))
    own = SIGMA_OF_MAD * float(np.median(np.abs(rates - median)))
    odd = []
    for day, rate in known:
        error = math.sqrt(max(median * (1 - median), 0.0) / day.day.rows)
        if abs(rate - median) > max(ODD_RATE * max(error, own), LEAST_ODD * median):
            odd.append(day)
    return odd, median


def _thinned(description: DatasetSummary) -> Iterator[DataWarning]:
    for split in description.splits:
        if len(split.kept) > 1:
            yield DataWarning(
                f"Days of split {split.name} kept different shares of negatives ({listed([percent(k) for k in split.kept])}). "
                "No model can be calibrated back on them: build the split anew with one sampling.negatives."
            )
        elif split.name != "train" and split.kept and split.kept[0] < 1:
            yield DataWarning(
                f"Split {split.name} kept {percent(split.kept[0])} of its negatives. Logloss and calibration taken on it are of a log "
                "that has more clicks than the true one."
            )


def _early(description: DatasetSummary) -> Iterator[DataWarning]:
    if description.unmeasured:
        days = [day.day.day for day in description.unmeasured]
        yield DataWarning(
            f"An earlier release built {counted(len(days), 'day')} without statistics ({spans(days)}): this page does not show "
            "what is not known of them. Build the samples again to see histories, values, drift and broken rows."
        )


def _outside(description: DatasetSummary) -> Iterator[DataWarning]:
    outside = [day.day.day for day in description.days if day.split is None]
    if outside:
        yield DataWarning(f"{counted(len(outside), 'day')} {_is(outside)} in no split: {spans(outside)}.", serious=False)


def _is(things: Sequence[object]) -> str:
    return "is" if len(things) == 1 else "are"


Rule = Callable[[DatasetSummary], Iterator[DataWarning]]

#: In the order in which they are read.
RULES: tuple[Rule, ...] = (
    _early,
    _missing,
    _open,
    _odd_rates,
    _shifted,
    _unknown,
    _quarantined,
    _unmatched,
    _undrawn,
    _clipped,
    _empty,
    _thinned,
    _outside,
)

#: For a page that has no warning.
CHECKED = (
    "days that are missing or not final, label rates of single days, drift of the held-out splits, unknown ids, broken rows, "
    "negatives that could not be drawn, keys that rarely meet, early clicks, empty histories, thinned negatives"
)
