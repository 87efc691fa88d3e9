"""Calendar days of a time zone: which day a moment belongs to, and when a day begins.

All of the pipeline asks here. A day is a number, counted from 1970-01-01; a moment is microseconds since 1970-01-01 00:00 UTC. A day
lasts from its midnight to the next one, so the days of a zone with daylight saving have 23, 24 or 25 hours.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

EPOCH = dt.date(1970, 1, 1)
ONE_DAY = dt.timedelta(days=1)
#: Microseconds of 24 hours, which is a day of UTC and a span of time everywhere.
DAY_MICROSECONDS = 86_400_000_000
HOUR_MICROSECONDS = 3_600_000_000

#: Times and days outside these years are taken for a wrong unit, not for data.
PLAUSIBLE_YEARS = (1990, 2100)
#: The days of a zone are known from the day before 1970-01-01 to the end of this year.
_LAST_YEAR = 2102


def day_number(day: dt.date) -> int:
    """The number of a day: days since 1970-01-01."""
    return (day - EPOCH).days


def microseconds(span: dt.timedelta) -> int:
    """A span of time in microseconds."""
    return span // dt.timedelta(microseconds=1)


@dataclass(frozen=True)
class Calendar:
    """The days of a time zone, by its name in the IANA database, such as ``Europe/Zurich``.

    Raises:
        ValueError: there is no such zone.
    """

    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.zone not in _zones():
            raise ValueError(
                f"there is no time zone {self.zone!r}; give a name of the IANA database, such as UTC or Europe/Zurich"
            )

    @property
    def is_utc(self) -> bool:
        """Whether days are those of UTC, all of 24 hours."""
        return self.zone == "UTC"

    @property
    def slack(self) -> dt.timedelta:
        """How much shorter some days can be than as many times 24 hours: what a range of whole days is widened by."""
        return dt.timedelta(0) if self.is_utc else ONE_DAY

    def numbers(self, times: IntArray) -> IntArray:
        """The days of moments, shape ``(N,)``."""
        if self.is_utc:
            return times // DAY_MICROSECONDS
        # a day that the zone left out has the beginning of the next one, which is the one that counts
        found = np.searchsorted(_beginnings(self.zone), times, "right").astype(np.int64)
        return found - 2  # the first of them is that of the day -1

    def starts(self, days: IntArray) -> IntArray:
        """The first moments of days, shape ``(N,)``."""
        return days * DAY_MICROSECONDS if self.is_utc else _beginnings(self.zone)[days + 1]

    def start(self, day: dt.date) -> int:
        """The first moment of a day."""
        return int(self.starts(np.array([day_number(day)]))[0])

    def day(self, time: int) -> dt.date:
        """The day of a moment."""
        return EPOCH + int(self.numbers(np.array([time]))[0]) * ONE_DAY

    def number_sql(self, column: str) -> str:
        """A Spark SQL expression: the day of a timestamp, an int. Plain arithmetic, which costs less than Spark's own calendar."""
        local = column if self.is_utc else f"from_utc_timestamp({column}, '{self.zone}')"
        return f"int(unix_micros({local}) DIV {DAY_MICROSECONDS})"

    def start_sql(self, day: dt.date) -> str:
        """A Spark SQL expression: the first moment of a day, a timestamp."""
        return f"timestamp_micros({self.start(day)})"


@functools.cache
def _zones() -> set[str]:
    """The names that Python and Java know; the others are of files on this machine."""
    return zoneinfo.available_timezones() - {"localtime", "Factory", "posixrules"}


@functools.lru_cache(maxsize=8)
def _beginnings(zone: str) -> IntArray:
    """When the days of a zone begin, from the day before 1970-01-01 on: at their midnight, the first where the clock shows it twice."""
    info, utc = zoneinfo.ZoneInfo(zone), dt.timezone.utc
    first, last = EPOCH - ONE_DAY, dt.date(_LAST_YEAR, 12, 31)
    origin = dt.datetime(1970, 1, 1, tzinfo=utc)
    midnights = (dt.datetime.combine(first + n * ONE_DAY, dt.time(), info) for n in range((last - first).days + 1))
    return np.array([microseconds(midnight.astimezone(utc) - origin) for midnight in midnights], np.int64)


def days_between(first: dt.date, last: dt.date) -> list[dt.date]:
    """All days from the first to the last, both included."""
    return [first + i * ONE_DAY for i in range((last - first).days + 1)]
