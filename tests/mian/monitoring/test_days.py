"""Which days are compared with which."""

import datetime as dt
from typing import Any

import pytest

from mian.contract import Contract, Day, Split
from mian.contract.lineage import Lineage
from mian.monitoring.days import ChosenDays, MonitoringError, Span, choose_days
from tests.factories import make_contract

FIRST = dt.date(2026, 3, 1)


def date(place: int) -> dt.date:
    return FIRST + dt.timedelta(days=place)


def contract_of(count: int, *, without: tuple[int, ...] = (), open_days: tuple[int, ...] = ()) -> Contract:
    days = [
        Day(day=date(place), rows=10, positives=1, fingerprint="f", files=(), final=place not in open_days)
        for place in range(count)
        if place not in without
    ]
    return make_contract(days=tuple(reversed(days)))


LINEAGE = Lineage(
    samples="s",
    contract="small",
    generation=1,
    vocabulary_version=1,
    fields_fingerprint="f",
    config_fingerprint="c",
    code_fingerprint="c",
    days=(),
    seen=(Split(first=date(0), last=date(4)),),
)


ALL = Span()


def chosen(contract: Contract, asked: Span = ALL, reference: Span | None = None, **others: Any) -> tuple[list[int], ...]:
    found: ChosenDays = choose_days(contract, others.get("lineage", LINEAGE), others.get("reference_days", 4), asked, reference)
    days = [day.day for day in found.reference], [day.day for day in found.looked_at], [*found.missing, *found.not_final]
    return tuple([(day - FIRST).days for day in each] for each in days)


def test_the_first_unseen_days_are_the_reference_and_all_later_ones_are_looked_at() -> None:
    assert chosen(contract_of(12)) == ([5, 6, 7, 8], [9, 10, 11], [])
    assert chosen(contract_of(12), reference_days=3) == ([5, 6, 7], [8, 9, 10, 11], [])
    assert chosen(contract_of(12), lineage=None) == ([0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11], [])


def test_days_that_are_asked_for_are_looked_at() -> None:
    assert chosen(contract_of(12), Span(date(10), date(10))) == ([5, 6, 7, 8], [10], [])
    assert chosen(contract_of(12), Span(last=date(10))) == ([5, 6, 7, 8], [9, 10], [])
    assert chosen(contract_of(12), Span(date(8))) == ([5, 6, 7], [8, 9, 10, 11], []), "a day is not compared with itself"
    assert chosen(contract_of(14), Span(date(7)), Span(date(9), date(12))) == ([9, 10, 11, 12], [7, 8, 13], [])


def test_a_day_without_samples_is_named_and_one_whose_labels_may_change_is_left_out() -> None:
    assert chosen(contract_of(12, without=(10,))) == ([5, 6, 7, 8], [9, 11], [10])
    assert chosen(contract_of(12, open_days=(11,))) == ([5, 6, 7, 8], [9, 10], [])
    found = choose_days(contract_of(12, open_days=(10,)), LINEAGE, 4, ALL)
    assert (found.missing, found.not_final) == ((), (date(10),)), "between days that are final it is named"


@pytest.mark.parametrize(
    ("contract", "asked", "reference", "error"),
    [
        (contract_of(7), Span(), None, r"at least 3 final days after 2026-03-05.* there are 2 \(2026-03-06, 2026-03-07\)"),
        (contract_of(9), Span(), None, "no final day is left to look at: the reference ends at 2026-03-09"),
        (contract_of(12), Span(last=date(20)), None, "2026-03-21 is not built"),
        (contract_of(12, open_days=(11,)), Span(date(11)), None, "2026-03-12 is not built, or its labels are not final"),
        (contract_of(12), Span(date(6)), None, "at least 3 final days"),
        (
            contract_of(12),
            Span(date(3), date(10)),
            None,
            "2026-03-04 is asked for, and the model was trained on or chosen by days up to",
        ),
        (contract_of(12), Span(), Span(date(3), date(7)), "the reference has 2026-03-04, and the model was trained on"),
        (contract_of(12), Span(date(6), date(7)), Span(date(6), date(9)), "no final day is left to look at"),
        (contract_of(12), Span(date(10), date(9)), None, "no day is from 2026-03-11 to 2026-03-10"),
        (contract_of(12), Span(), Span(date(8), date(5)), "no day is from 2026-03-09 to 2026-03-06"),
        (make_contract(), Span(), None, r"there are 0 \(none\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(contract: Contract, asked: Span, reference: Span | None, error: str) -> None:
    with pytest.raises(MonitoringError, match=error):
        choose_days(contract, LINEAGE, 4, asked, reference)
