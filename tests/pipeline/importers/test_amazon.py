from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipeline.importers.amazon_2014 import DAYS, FIRST_DAY, negative_items
from tests.pipeline.importers.conftest import Imported
from tests.support.generated import amazon_reviews

UTC = dt.timezone.utc
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def expected() -> dict[str, Rows]:
    """Each user's reviews in the order of their days, those of a day in the order of their items."""
    by_user: dict[str, Rows] = defaultdict(list)
    for review in sorted(amazon_reviews(150), key=lambda review: (review["unixReviewTime"], review["asin"])):
        by_user[str(review["reviewerID"])].append(review)
    return by_user


def by_user(rows: Rows) -> dict[str, Rows]:
    result: dict[str, Rows] = defaultdict(list)
    for row in rows:
        result[row["user_id"]].append(row)
    return result


def test_each_user_has_one_positive_and_one_negative_that_it_never_reviewed(
    imported: Callable[[str], Imported], expected: dict[str, Rows]
) -> None:
    samples = by_user(imported("amazon-2014").rows("impressions", "label"))
    assert samples.keys() == expected.keys()
    everything = {review["asin"] for reviews in expected.values() for review in reviews}
    for user, reviews in expected.items():
        negative, positive = samples[user]
        assert (negative["label"], positive["label"]) == (0, 1)
        assert (negative["impression_id"], positive["impression_id"]) == (f"{user}-negative", f"{user}-positive")
        assert positive["item_id"] == reviews[-1]["asin"]
        assert negative["item_id"] in everything - {review["asin"] for review in reviews}
        same = positive.keys() - {"impression_id", "item_id", "label"}
        assert {key: negative[key] for key in same} == {key: positive[key] for key in same}
        earlier = [float(review["overall"]) for review in reviews[:-1]]
        assert positive["earlier_reviews"] == len(earlier)
        assert positive["earlier_rating"] == pytest.approx(sum(earlier) / len(earlier))
        assert positive["review_date"] == dt.datetime.fromtimestamp(reviews[-1]["unixReviewTime"], UTC).date()


def test_the_history_is_what_came_before_in_order_and_with_its_gaps(
    imported: Callable[[str], Imported], expected: dict[str, Rows]
) -> None:
    logs = imported("amazon-2014")
    samples = by_user(logs.rows("impressions", "label"))
    histories = by_user(logs.rows("behaviors", "time"))
    for user, reviews in expected.items():
        shown = samples[user][1]["time"]
        assert [row["item_id"] for row in histories[user]] == [review["asin"] for review in reviews[:-1]]
        times = [*(row["time"] for row in histories[user]), shown]
        assert all(before < after for before, after in itertools.pairwise(times))
        assert FIRST_DAY <= shown.date() < FIRST_DAY + dt.timedelta(days=DAYS)
        days = [dt.datetime.fromtimestamp(review["unixReviewTime"], UTC).date() for review in reviews]
        assert [shown.date() - time.date() for time in times] == [days[-1] - day for day in days]


def test_users_are_spread_over_the_days(imported: Callable[[str], Imported]) -> None:
    logs = imported("amazon-2014")
    counts = Counter(row["time"].date() for row in logs.rows("impressions", "label"))
    assert len(counts) == DAYS
    assert max(counts.values()) < 3 * min(counts.values())
    assert logs.record.logs["impressions"].empty_days == ()


def test_items_of_2014(imported: Callable[[str], Imported]) -> None:
    items = imported("amazon-2014").rows("items", "item_id")
    assert items[0] == {"item_id": "B000", "category": "Men's 0", "brand": None, "price": 10.5}
    assert items[1] == {"item_id": "B001", "category": "Men's 1", "brand": "O'Neil", "price": 11.5}
    assert items[-1] == {"item_id": "B038", "category": None, "brand": None, "price": None}


def test_negatives_are_drawn_with_equal_chances(spark: SparkSession) -> None:
    own = {"b", "d", "e"}
    rows = [(f"user {n}", item) for n in range(400) for item in own] + [("other", item) for item in "abcdefg"]
    drawn = negative_items(spark.createDataFrame(rows, "user_id string, item_id string")).collect()
    counts = Counter(row["item_id"] for row in drawn)
    assert counts.keys() == set("abcdefg") - own  # and none for the user who reviewed everything
    assert sum(counts.values()) == 400
    assert all(70 <= count <= 130 for count in counts.values())  # 100 each; four standard deviations are 35


def test_2023(imported: Callable[[str], Imported]) -> None:
    logs = imported("amazon-2023")
    impressions = logs.rows("impressions", "time", "impression_id")
    assert impressions[0] == {
        "impression_id": "AGKHLEW2-B00-1641038400721",
        "user_id": "AGKHLEW2",
        "item_id": "B00",
        "time": dt.datetime(2022, 1, 1, 12, 0, 0, 721_000, tzinfo=UTC),
        "rating": 5.0,
        "verified_purchase": True,
    }
    # the same review once more has an id of its own
    assert impressions[1] == impressions[0] | {"impression_id": "AGKHLEW2-B00-1641038400721-2"}
    items = logs.rows("items", "item_id")
    assert [item["price"] for item in items] == [None, None, None, 9.99, 19.99, 5.0]
    assert items[0] == {
        "item_id": "B00",
        "main_category": "All Beauty",
        "category": "All Beauty",
        "store": "Howard",
        "price": None,
    }
    assert items[1]["category"] == "Soap"
