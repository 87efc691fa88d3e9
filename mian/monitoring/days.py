"""Which days are looked at, and which days they are compared with."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from mian.contract import Contract, Day
from mian.contract.lineage import Lineage

FEWEST = 3
"""With fewer reference days it is not known how much days differ."""
ONE_DAY = dt.timedelta(days=1)


class MonitoringError(ValueError):
    """There is nothing to look at, or nothing to compare it with."""


@dataclass(frozen=True)
class Span:
    """Days of the calendar; None on a side that is open."""

    first: dt.date | None = None
    last: dt.date | None = None

    def __contains__(self, day: dt.date) -> bool:
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


@dataclass(frozen=True)
class ChosenDays:
    """What :func:`choose_days` found, in order of time.

    Attributes:
        reference: What days are compared with.
        looked_at: The days to look at that have samples.
        missing: Days between them that have none.
        not_final: Days between them whose labels may still change.
    """

    reference: tuple[Day, ...]
    looked_at: tuple[Day, ...]
    missing: tuple[dt.date, ...]
    not_final: tuple[dt.date, ...]


def choose_days(
    contract: Contract, lineage: Lineage | None, reference_days: int, asked: Span, reference: Span | None = None
) -> ChosenDays:
    """Divide the days that the model has not seen: the first ones are the reference, later ones are looked at.

    Args:
        contract: Of the samples.
        lineage: Of the model; of published scores, None.
        reference_days: How many days the reference has where it is not named.
        asked: The days to look at; open sides mean from the reference on, and to the last final day.
        reference: The reference days, where they are named.

    Raises:
        MonitoringError: A span ends before it begins, a day is asked for that is not built or not final, the model has seen a day, there
            are too few reference days, or no day is left to look at.
    """
    for span in (asked, reference):
        if span is not None and span.first is not None and span.last is not None and span.first > span.last:
            raise MonitoringError(f"no day is from {span.first} to {span.last}; name the earlier day first")
    final = [day for day in sorted(contract.days, key=lambda day: day.day) if day.final]
    last_seen = lineage.last_seen if lineage is not None else None
    unseen = [day for day in final if last_seen is None or day.day > last_seen]
    for bound in (asked.first, asked.last):
        if bound is not None and last_seen is not None and bound <= last_seen:
            raise MonitoringError(
                f"{bound} is asked for, and the model was trained on or chosen by days up to {last_seen}; name later days"
            )
    if reference is None:
        chosen = unseen[:reference_days]
        chosen = [day for day in chosen if asked.first is None or day.day < asked.first]
    else:
        chosen = [day for day in final if day.day in reference]
        if seen := [day for day in chosen if day not in unseen]:
            raise MonitoringError(
                f"the reference has {seen[0].day}, and the model was trained on or chosen by days up to {last_seen}; name later days"
            )
    if len(chosen) < FEWEST:
        since = "" if last_seen is None else f" after {last_seen}, the last that the model has seen,"
        found = ", ".join(str(day.day) for day in chosen) or "none"
        raise MonitoringError(
            f"at least {FEWEST} final days{since} are needed to compare with, before those that are looked at, and there are {len(chosen)} "
            f"({found}); build more days, monitor an older version, or name others by --reference-from and --reference-to"
        )
    end = chosen[-1].day
    for bound in (asked.first, asked.last):
        if bound is not None and bound not in {day.day for day in final}:
            raise MonitoringError(f"{bound} is not built, or its labels are not final yet; name another day, or build it")
    days = [day for day in unseen if day.day in asked and day not in chosen and (asked.first is not None or day.day > end)]
    if not days:
        newest = final[-1].day if final else None
        raise MonitoringError(
            f"no final day is left to look at: the reference ends at {end}, the samples at {newest}; build later days, or set "
            f"reference_days below {len(chosen)}"
        )
    first, last = asked.first or end + ONE_DAY, days[-1].day
    there, built = {day.day for day in (*days, *chosen)}, {day.day for day in contract.days}
    absent = [day for day in _calendar(first, last) if day not in there]
    missing, not_final = (tuple(day for day in absent if (day in built) == is_built) for is_built in (False, True))
    return ChosenDays(tuple(chosen), tuple(days), missing, not_final)


def _calendar(first: dt.date, last: dt.date) -> list[dt.date]:
    return [first + ONE_DAY * place for place in range((last - first).days + 1)]
