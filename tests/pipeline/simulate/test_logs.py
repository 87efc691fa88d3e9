"""What the written logs promise to whoever reads them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from scipy import stats

from pipeline.config.simulation import SimulateConfig
from pipeline.simulate.write import simulated_rows, user_snapshots

if TYPE_CHECKING:
    from tests.pipeline.simulate.conftest import Logs

pytestmark = pytest.mark.spark


def plausible(successes: int, trials: int, probability: float) -> bool:
    """Whether a binomial count is within what chance gives in all but one of 100 thousand worlds."""
    low, high = stats.binom.interval(1 - 1e-5, trials, probability)
    return bool(low <= successes <= high)


def test_the_world_has_exactly_the_impressions_that_were_asked_for(logs: Logs) -> None:
    assert logs.impressions["impression_id"].nunique() == logs.config.impressions
    assert set(logs.truth["impression_id"]) == set(logs.impressions["impression_id"])
    assert logs.truth["impression_id"].is_unique


def test_labels_have_the_rate_that_the_truth_says(logs: Logs) -> None:
    labels = logs.labels()
    error = np.sqrt((labels["probability"] * (1 - labels["probability"])).sum())
    assert abs(labels["label"].sum() - labels["probability"].sum()) < 4 * error
    assert 0.08 < labels["label"].mean() < 0.16


def test_the_truth_is_calibrated_at_every_probability(logs: Logs) -> None:
    labels = logs.labels()
    for _, bin_ in labels.groupby(pd.qcut(labels["probability"], 25), observed=True):
        spread = np.sqrt((bin_["probability"] * (1 - bin_["probability"])).sum())
        assert abs(bin_["label"].sum() - bin_["probability"].sum()) < 4 * spread


def test_clicks_come_strictly_after_their_impressions(logs: Logs) -> None:
    both = logs.clicks.merge(logs.impressions.drop_duplicates("impression_id"), on="impression_id", suffixes=("", "_shown"))
    assert (both["event_time"] > both["event_time_shown"]).all()
    assert (both["user_id"] == both["user_id_shown"]).all()
    assert (both["item_id"] == both["item_id_shown"]).all()


def test_no_item_is_shown_before_its_release(logs: Logs) -> None:
    shown = logs.impressions.merge(logs.items, on="item_id", how="left", validate="many_to_one")
    assert (shown["released_at"] <= shown["event_time"]).all()
    first = pd.Timestamp(logs.config.first_day, tz="UTC")
    assert (shown["released_at"] > first).any()


def test_a_slate_shows_no_item_twice(logs: Logs) -> None:
    distinct = logs.impressions.drop_duplicates("impression_id")
    again = distinct.duplicated(["user_id", "event_time", "item_id"])
    assert again.mean() < 1e-3  # only where a small category runs out


def test_the_dirt_is_there_in_its_stated_shares(logs: Logs) -> None:
    twice = logs.impressions["impression_id"].duplicated()
    assert plausible(twice.sum(), logs.config.impressions, 0.005)
    assert logs.impressions[twice].merge(logs.impressions, how="left", indicator=True)["_merge"].eq("both").all()

    distinct = logs.clicks.drop_duplicates()
    orphan = ~distinct["impression_id"].isin(logs.impressions["impression_id"])
    real = int((~orphan).sum())
    assert plausible(len(logs.clicks) - len(distinct), real, 0.005)
    assert plausible(int(orphan.sum()), real, 0.005)

    delays = logs.labels().dropna()
    late = int((~delays["label"]).sum())
    assert plausible(late, real, 0.01)


def test_days_are_utc_days_of_the_event_and_clicks_go_on_for_one_more(logs: Logs) -> None:
    for log, last in ((logs.impressions, logs.config.last_day), (logs.clicks, logs.config.last_day + dt.timedelta(days=1))):
        assert (log["event_time"].dt.date.astype(str) == log["day"]).all()
        assert log["event_time"].dt.date.min() == logs.config.first_day
        assert log["event_time"].dt.date.max() == last


def test_a_day_is_one_sorted_file(logs: Logs) -> None:
    for day in Path(logs.config.output).glob("impressions/day=*"):
        (file,) = day.iterdir()
        assert pd.read_parquet(file)["event_time"].is_monotonic_increasing


def test_profiles_change_come_late_or_are_never_there(logs: Logs) -> None:
    days = sorted(logs.users["day"].unique())
    assert days[0] == str(logs.config.first_day)
    assert len(days) == 5
    assert not logs.users.duplicated(["day", "user_id"]).any()
    per_user = logs.users.groupby("user_id")
    for field in ("home_city", "occupation", "membership"):
        changed = per_user[field].nunique() > 1
        assert 0.02 < changed.mean() < 0.4
    assert 0.05 < (per_user["day"].min() > days[0]).mean() < 0.4
    active = set(logs.impressions["user_id"])
    # 5 % for ever, and some who come or fill it in after the last snapshot
    assert 0.04 < len(active - set(logs.users["user_id"])) / len(active) < 0.14


def test_rows_do_not_depend_on_partitions(spark: SparkSession) -> None:
    config = SimulateConfig(
        output="unused", impressions=6_000, users=1_600, first_day=dt.date(2026, 1, 1), last_day=dt.date(2026, 1, 20), seed=7
    )
    for build in (simulated_rows, user_snapshots):
        one: pd.DataFrame = build(spark, config, 1).toPandas()
        three: pd.DataFrame = build(spark, config, 3).toPandas()
        order = list(one.columns)
        pd.testing.assert_frame_equal(
            one.sort_values(order, ignore_index=True), three.sort_values(order, ignore_index=True), check_exact=True
        )
