"""Figures and rules in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from mian.contract import Contract
from pipeline.days import ONE_DAY

#: What is not known.
DASH = "\N{EN DASH}"


def number(value: float | None) -> str:
    """A count with thousands set off."""
    return DASH if value is None else f"{value:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percent; one too small for the digits is said to be so."""
    if share is None:
        return DASH
    least = 10.0**-digits
    if 0 < 100 * share < least / 2:
        return f"< {least:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 day``, ``2 days``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def shortened(parts: Sequence[str], most: int = 5) -> str:
    """A list of a few, and how many more there are."""
    left = len(parts) - most
    return listed(parts) if left <= 0 else f"{', '.join(parts[:most])} and {left:,} more"


def spans(days: Iterable[dt.date], most: int = 4) -> str:
    """Days as spans without gaps: ``2026-01-01 to 2026-01-05 and 2026-01-09``."""
    runs: list[list[dt.date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == ONE_DAY:
            runs[-1].append(day)
        else:
            runs.append([day])
    return shortened([str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs], most)


def rules(contract: Contract) -> Iterator[tuple[str, str]]:
    """What a sample is: a heading and a few sentences each."""
    yield "Label", " ".join(_label(contract))
    yield "History", " ".join(_history(contract))
    yield "Vocabularies", " ".join(_vocabularies(contract))
    yield "Negatives", " ".join(_negatives(contract))


def _label(contract: Contract) -> Iterator[str]:
    label = contract.label
    if label.kind == "labeled":
        yield "A sample is an impression of the log, and its label is the one that the log gives."
    elif label.kind == "positives_only":
        yield "The log has positive events only. Each is a sample with label 1; samples with label 0 are drawn for it."
    else:
        hours = f"{label.attribution_hours:g} hours" if label.attribution_hours is not None else "the attribution window"
        if label.attribution_by == "user_and_item":
            yield (
                f"A sample is an impression. Its label is 1 where its user clicked its item within {hours}, "
                "and no later impression of this item lies between."
            )
        else:
            yield f"A sample is an impression. Its label is 1 where a click of the same impression id came within {hours} of it."
        yield "A day is final once this window is over for its last impression."


def _history(contract: Contract) -> Iterator[str]:
    history = contract.history
    cutoff = "the impression" if history.cutoff == "impression" else f"the day of the impression ({contract.day_time_zone}) began"
    before = f"more than {history.lag_hours:g} hours before {cutoff}" if history.lag_hours else f"before {cutoff}"
    if history.recorded:
        dated = f", none older than {counted(history.days, 'day')}" if history.recorded == "dated" else ""
        yield (
            f"A history holds the last {history.length:,} behaviors that the log recorded with the impression{dated}, the most recent "
            "first. They were known then."
        )
        return
    yield (
        f"A history holds the user's last {history.length:,} behaviors, the most recent first, none older than "
        f"{counted(history.days, 'day')}."
    )
    yield f"Only what had happened, and had arrived, {before} is in it."


def _vocabularies(contract: Contract) -> Iterator[str]:
    if contract.vocabulary_days:
        made = ", ".join(f"{span.first} to {span.last}" for span in contract.vocabulary_days)
        yield f"Vocabularies and transforms were made from the training days {made}."
    else:
        yield "Vocabularies and transforms were made from training days alone."
    if contract.vocabulary_version > 1:
        yield f"They were extended since: this is version {contract.vocabulary_version}. No id ever moves."
    yield "Id 0 is padding, id 1 stands for a value that is missing or has no id."


def _negatives(contract: Contract) -> Iterator[str]:
    each = contract.label.negatives_per_positive
    if each is not None:
        yield f"{counted(each, 'negative')} {'is' if each == 1 else 'are'} drawn for each positive."
    kept = sorted({day.negatives_kept for day in contract.days})
    if kept == [1.0]:
        yield "No sample with label 0 was left out." if each is None else "None was left out afterwards."
        return
    for share in kept:
        days = [day.day for day in contract.days if day.negatives_kept == share]
        yield f"{percent(share)} of the impressions with label 0 became samples on {spans(days)}."
    yield "Label rates on this page are those before negatives were left out."
