from __future__ import annotations

import math

import numpy as np
import pytest

from mian.contract import Field, NumericTransform, Reference
from mian.contract.stability import SMALLEST_SHARE, stability_index
from pipeline.encoding.statistics import NAMED_BINS, binned, shares, total

CITY = Field(group="user", name="city", vocabulary="city")
PRICE = Field(group="candidate", name="price", transform=NumericTransform(kind="identity", mean=0.0, std=1.0))


def test_the_most_frequent_ids_have_a_bin_each() -> None:
    counts = binned(CITY, 100, None, np.array([1, 2, 2, 3, 21, 22, 99], np.int32))
    assert {place: n for place, n in enumerate(counts.tolist()) if n} == {0: 1, 1: 2, 2: 1, 20: 1, 21: 2}
    assert len(counts) == NAMED_BINS + 2
    assert binned(CITY, 5, None, np.array([1, 2, 4], np.int32)).tolist() == [1, 1, 0, 1]
    assert binned(CITY, 5, None, np.array([], np.int32)).tolist() == [0, 0, 0, 0]


def test_numbers_lie_between_edges() -> None:
    reference = Reference(shares=(), edges=(0.0, 1.0))
    assert binned(PRICE, None, reference, np.array([-5.0, 0.0, 0.5, 1.0, 9.0])).tolist() == [1, 2, 2]


def test_the_index_is_the_sum_over_bins() -> None:
    expected, actual = (0.5, 0.3, 0.2), (0.4, 0.4, 0.2)
    by_hand = sum((a - e) * math.log(a / e) for e, a in zip(expected, actual, strict=True))
    assert stability_index(expected, actual) == pytest.approx(by_hand, abs=1e-6)
    assert stability_index(expected, expected) == 0.0
    assert stability_index((0.0, 0.0), actual) == 0.0  # nothing to compare with


def test_an_empty_bin_counts_as_a_small_one_and_a_missing_one_as_empty() -> None:
    by_hand = (1 - SMALLEST_SHARE) * math.log(1 / SMALLEST_SHARE) * 2
    assert stability_index((1.0, 0.0), (0.0, 1.0)) == pytest.approx(by_hand, abs=1e-5)
    assert stability_index((1.0,), (0.0, 1.0)) == stability_index((1.0, 0.0), (0.0, 1.0))


def test_shares_of_nothing_are_zero() -> None:
    assert shares([0, 0]) == (0.0, 0.0)
    assert shares([1, 2]) == (0.333333, 0.666667)


def test_counts_of_parts_add_up_whatever_their_lengths() -> None:
    part = {"rows": 2, "positives": 1, "seen": 1, "history_length": [1, 1], "behavior_age_days": [3]}
    one = part | {"columns": {"a": {"counts": [1, 1], "positives": [0, 1]}, "b": {"counts": [2]}}}
    two = part | {"behavior_age_days": [1, 2], "columns": {"a": {"counts": [2, 0], "positives": [1, 0]}, "b": {"counts": [1, 1]}}}
    both = total([one, two])
    assert (both["rows"], both["history_length"], both["behavior_age_days"]) == (4, [2, 2], [4, 2])
    assert both["columns"] == {"a": {"counts": [3, 1], "positives": [1, 1]}, "b": {"counts": [3, 1]}}
    assert total([])["rows"] == 0
