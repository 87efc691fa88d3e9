"""The days that two models are compared on: final ones that neither has seen, after all that either has."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from mian.contract import Contract, Day
from mian.contract.lineage import Lineage
from mian.promotion.settings import DaysConfig


class UnseenDaysError(ValueError):
    """There are no days that the models can be compared on."""


def unseen_days(contract: Contract, lineages: Sequence[Lineage | None], settings: DaysConfig) -> tuple[Day, ...]:
    """The newest final days after all days that any of the models has seen, without a gap, in order of time.

    Days whose negatives were thinned are not taken: metrics would be of other rows. A day before the last that a model was trained on is
    not taken, also where it was left out of the training: what came later knows of it.

    Args:
        contract: of the samples.
        lineages: of the models.
        settings: how many at most.

    Raises:
        UnseenDaysError: there is none, or a model does not say which days it has seen.
    """
    seen = [None if lineage is None else lineage.last_seen for lineage in lineages]
    last = max((day for day in seen if day is not None), default=None)
    if last is None or None in seen:
        raise UnseenDaysError("a model does not say which days it, or a model that it began with, was trained on")
    days: list[Day] = []
    for day in sorted(contract.days, key=lambda day: day.day):
        if day.day <= last or not day.final or day.negatives_kept < 1:
            continue
        if days and day.day - days[-1].day != dt.timedelta(days=1):
            days = []
        days.append(day)
    if not days:
        newest = max((day.day for day in contract.days), default=None)
        raise UnseenDaysError(
            f"no day after {last}, the last that the models were trained on or chosen by, is built and final with all its negatives (the "
            f"newest day is {newest}); a day is final when the clicks of its whole attribution window are there"
        )
    if not any(day.rows for day in days):
        raise UnseenDaysError(f"{days[0].day} to {days[-1].day}, which no model has seen, have no samples")
    return tuple(days[-settings.most :])
