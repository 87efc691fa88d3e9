"""What is to be looked at: each rule speaks where it has reason to, and only there."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from mian.contract import Label, Split
from pipeline.describe import describe
from pipeline.describe.warnings import find_warnings
from tests.support.small_set import DUPLICATE, SMALL, Plan, days, write_set


def said(folder: Path, plans: list[Plan], **changes: Any) -> list[str]:
    """Remarks that are serious, and those that are not with "note: " before them."""
    write_set(folder, plans, **changes)
    return [("" if warning.serious else "note: ") + warning.text for warning in find_warnings(describe(str(folder)))]


def with_last(**last: Any) -> list[Plan]:
    return [*SMALL[:3], Plan("2026-03-04", **last)]


def test_nothing_is_said_of_a_set_as_it_should_be(tmp_path: Path) -> None:
    assert said(tmp_path, list(SMALL)) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"final": False}, "1 day is not final: 2026-03-04."),
        ({"position": (0, 5, 5, 90)}, "in split test context_position "),
        ({"age": (21, 40, 39)}, "Unknown ids and missing numbers, each column's worst split: user_age 21.0 % in split test."),
        ({"quarantined": {DUPLICATE: 1}}, f"“{DUPLICATE}” 1 (0.25 % of its log)."),
        ({"history": (51, 0, 0, 0, 49)}, "Empty histories: 51.0 % of split test."),
        ({"matched": {"clicks": (30, 14)}}, "Keys that rarely meet: 46.7 % of 30 clicks have an impression."),
        ({"matched": {"lookups.1": (100, 0)}}, "Keys that rarely meet: 0.0 % of 100 impressions have a row of lookups.1."),
        ({"matched": {"clicks": (30, 29)}, "early": 1}, "1 of 30 clicks come before their impression"),
        ({"kept": 0.5}, "Split test kept 50.0 % of its negatives."),
    ],
)
def test_one_thing_is_odd(tmp_path: Path, last: dict[str, Any], words: str) -> None:
    (found,) = said(tmp_path, with_last(**last))
    assert words in found


@pytest.mark.parametrize(
    "last",
    [
        {"age": (20, 40, 40)},
        {"quarantined": {DUPLICATE: 1}, "log_rows": 10_000},
        {"history": (50, 0, 0, 0, 50)},
        {"position": (0, 40, 35, 25)},
        {"matched": {"clicks": (30, 15), "users": (100, 60)}, "early": 0},
    ],
)
def test_a_little_is_not_odd(tmp_path: Path, last: dict[str, Any]) -> None:
    assert said(tmp_path, with_last(**last)) == []


def test_what_the_training_days_do_as_well_is_only_noted(tmp_path: Path) -> None:
    turns = [Plan(f"2026-03-0{n}", position=(0, 100, 0, 0) if n % 2 else (0, 0, 60, 40)) for n in range(1, 7)]
    (found,) = said(tmp_path, turns)
    assert found.startswith("note: context_position: the stability index is above 0.25 in validation and test, but")


def test_negatives_that_could_not_be_drawn_are_remarked_on(tmp_path: Path) -> None:
    label = Label(kind="positives_only", negatives_per_positive=4)
    assert said(tmp_path / "few", with_last(undrawn=3), label=label) == []
    (found,) = said(tmp_path / "many", with_last(undrawn=4), label=label)
    assert found.startswith("4 negatives could not be drawn (1.25 % of those asked for), on 1 day: 2026-03-04.")


def test_a_split_lacks_days(tmp_path: Path) -> None:
    splits = {
        "train": Split(first=dt.date(2026, 2, 27), last=dt.date(2026, 3, 2)),
        "validation": Split(first=dt.date(2026, 3, 3), last=dt.date(2026, 3, 3)),
        "later": Split(first=dt.date(2026, 3, 8), last=dt.date(2026, 3, 9)),
    }
    train, later, outside = said(tmp_path, list(SMALL), splits=splits)
    assert train.startswith("Split train lacks 2 of 4 days (missing: 2026-02-27 to 2026-02-28).")
    assert later.startswith("Split later lacks 2 of 2 days (none is built).")
    assert outside == "note: 1 day is in no split: 2026-03-04."


def test_days_of_a_split_were_thinned_differently(tmp_path: Path) -> None:
    (found,) = said(tmp_path, [Plan("2026-03-01", kept=0.5), *SMALL[1:]])
    assert found.startswith("Days of split train kept different shares of negatives (50.0 % and 100.0 %).")


def test_a_label_rate_is_unlike_all_others(tmp_path: Path) -> None:
    usual = [Plan(f"2026-03-{n:02}", rows=1000, positives=200 + 10 * (n % 3), **LARGE) for n in range(1, 10)]
    assert said(tmp_path, usual) == []
    (found,) = said(tmp_path, [*usual, Plan("2026-03-10", rows=1000, positives=80, **LARGE)])
    assert found.startswith("Label rate far from the median of all days, 21.0 %: 2026-03-10 (8.0 %).")


#: Counts of a thousand samples.
LARGE: dict[str, Any] = {
    "seen": 50,
    "history": (100, 200, 300, 200, 200),
    "items": (0, 400, 300, 200, 100),
    "age": (100, 500, 400),
    "position": (0, 500, 300, 200),
    "price": (500, 500),
}


def test_a_day_that_is_not_final_is_not_called_odd_as_well(tmp_path: Path) -> None:
    (found,) = said(tmp_path, [*days("2026-03-01", 9), Plan("2026-03-10", positives=0, final=False)])
    assert "not final" in found


def test_an_earlier_release_built_it(tmp_path: Path) -> None:
    plans = [Plan(f"2026-03-0{n}", measured=False) for n in range(1, 5)]
    (found,) = said(tmp_path, plans)
    assert found.startswith("An earlier release built 4 days without statistics (2026-03-01 to 2026-03-04)")
