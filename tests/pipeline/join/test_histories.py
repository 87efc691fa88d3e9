from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mian.contract import History
from pipeline.days import DAY_MICROSECONDS, HOUR_MICROSECONDS, Calendar
from pipeline.join import histories
from pipeline.join.histories import cutoffs, find_histories
from pipeline.timelines import Timelines

UTC = Calendar()
event = st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 3), st.integers(0, 6))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=12),
    st.lists(event, max_size=20),
    st.integers(1, 5),
    st.integers(1, 9),
    st.booleans(),
)
def test_the_last_events_of_the_user_that_were_known(
    shown: list[tuple[int, int]], done: list[tuple[int, int, int, int]], length: int, days: int, late: bool
) -> None:
    columns = np.array(done, np.int64).reshape(-1, 4)
    users, times, ties, delays = columns[:, 0], columns[:, 1] * DAY_MICROSECONDS, columns[:, 2], columns[:, 3]
    visible = times + delays * DAY_MICROSECONDS
    impressions = np.array(shown, np.int64).reshape(-1, 2)
    now = impressions[:, 1] * DAY_MICROSECONDS
    found = find_histories(
        impressions[:, 0],
        now,
        Timelines(users, times, ties.__getitem__),
        visible if late else None,
        History(length=length, days=days),
        UTC,
    )
    for row, (user, day) in enumerate(shown):
        expected = [(d[1], d[2]) for d in done if d[0] == user and day - days <= d[1] < day and (not late or d[1] + d[3] < day)]
        places = found.places[found.offsets[row] : found.offsets[row + 1]]
        assert [(done[p][1], done[p][2]) for p in places] == sorted(expected, reverse=True)[:length]


def test_late_arrivals_are_walked_over_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "CELLS", 50)
    times = np.arange(1000) + 1
    visible = np.where(times < 20, times, 10_000)  # what came later than 20 had not arrived
    users = np.zeros(1000, np.int64)
    found = find_histories(
        np.zeros(30, np.int64), np.full(30, 5_000), Timelines(users, times), visible, History(length=7, days=1), UTC
    )
    assert found.lengths.tolist() == [7] * 30
    assert times[found.take(np.array([29, 3])).places].tolist() == [19, 18, 17, 16, 15, 14, 13] * 2


def test_cutoffs() -> None:
    noon = np.array([5 * DAY_MICROSECONDS + 12 * HOUR_MICROSECONDS])
    assert cutoffs(noon, History(length=1, days=1), UTC).tolist() == noon.tolist()
    assert cutoffs(noon, History(length=1, days=1, cutoff="previous_day"), UTC).tolist() == [5 * DAY_MICROSECONDS]
    lagged = History(length=1, days=1, cutoff="previous_day", lag_hours=1.5)
    assert cutoffs(noon, lagged, UTC).tolist() == [5 * DAY_MICROSECONDS - 1.5 * HOUR_MICROSECONDS]


def test_the_cutoff_of_the_day_before_is_the_midnight_of_the_calendar() -> None:
    calendar = Calendar("Europe/Zurich")
    local = dt.datetime(2026, 3, 29, 12, tzinfo=ZoneInfo("Europe/Zurich"))  # a day of 23 hours
    noon = np.array([int(local.timestamp()) * 1_000_000])
    found = cutoffs(noon, History(length=1, days=1, cutoff="previous_day"), calendar)
    assert (noon - found).tolist() == [11 * HOUR_MICROSECONDS]


def test_no_behaviors_at_all() -> None:
    nothing = np.zeros(0, np.int64)
    timelines, history = Timelines(nothing, nothing), History(length=3, days=1)
    found = find_histories(np.array([1, 2]), np.array([3, 4]), timelines, None, history, UTC)
    assert (found.places.tolist(), found.lengths.tolist()) == ([], [0, 0])
