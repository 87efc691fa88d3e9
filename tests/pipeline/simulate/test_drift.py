"""What changes in a world that drifts, and what stays. No Spark but for the audit."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession
from sklearn.metrics import log_loss, roc_auc_score

from jobs.configuration import load_config
from pipeline.audit import audit
from pipeline.build import build_samples
from pipeline.config import DataConfig
from pipeline.config.simulation import CATEGORIES, DriftConfig, SimulateConfig
from pipeline.simulate import coefficients, sessions
from pipeline.simulate.attainable import attainable_probability, held_by_samples
from pipeline.simulate.clicks import simulate_clicks
from pipeline.simulate.sessions import draw_sessions
from pipeline.simulate.users import draw_users
from pipeline.simulate.world import world_of
from pipeline.simulate.write import simulate_logs
from tests.support.simulated_rows import simulated_events

FIRST, FROM_DAY, LAST = dt.date(2025, 12, 3), dt.date(2026, 1, 10), dt.date(2026, 2, 14)
TURN_DAYS = 20
ROOT = Path(__file__).resolve().parents[3]


def config_of(**drift: float) -> SimulateConfig:
    return SimulateConfig(
        output="unused",
        impressions=80_000,
        users=1_000,
        items=240,
        first_day=FIRST,
        last_day=LAST,
        drift=DriftConfig(from_day=FROM_DAY, **drift) if drift else None,
    )


PLAIN = config_of()
NEW_ITEMS = config_of(new_items_per_day=0.03)
TURNING = config_of(taste_turn_days=TURN_DAYS)
BOTH = config_of(new_items_per_day=0.03, taste_turn_days=TURN_DAYS)


@functools.cache
def events_of(config: SimulateConfig) -> pa.Table:
    return simulated_events(config)


@functools.cache
def impressions(config: SimulateConfig) -> pd.DataFrame:
    """The distinct impressions of a world, with ``days``, counted from the drift's first one."""
    events = events_of(config)
    columns = ["impression_id", "user_id", "item_id", "day", "probability", "attainable", "label"]
    rows: pd.DataFrame = events.filter(pc.is_valid(events["probability"])).select(columns).to_pandas()
    return rows.assign(days=(pd.to_datetime(rows["day"]) - pd.Timestamp(FROM_DAY)).dt.days)


@pytest.mark.parametrize("drifting", [NEW_ITEMS, TURNING, BOTH], ids=["new items", "tastes", "both"])
def test_all_rows_before_the_first_day_are_those_of_the_world_without_drift(drifting: SimulateConfig) -> None:
    plain, drifted = events_of(PLAIN), events_of(drifting)
    before = [events.filter(pc.less(events["day"], FROM_DAY)) for events in (plain, drifted)]
    assert before[0].num_rows > 30_000
    assert before[0].equals(before[1])
    assert not plain.equals(drifted)


def test_new_items_are_shown_at_the_stated_rate_and_the_catalog_keeps_its_size() -> None:
    shown = impressions(NEW_ITEMS)
    catalog = world_of(NEW_ITEMS).items.catalog_size
    assert 180 < catalog < 240
    first_days = shown.groupby("item_id")["days"].min()
    new = first_days[first_days > 0].value_counts().sort_index()
    days = (LAST - FROM_DAY).days  # items of the last days may not have been shown yet
    assert 0.9 * 0.03 * catalog * days < new.sum() <= 0.03 * catalog * (days + 1)
    halves = new[new.index <= days // 2].sum(), new[new.index > days // 2].sum()
    assert abs(halves[0] - halves[1]) < 0.15 * new.sum()

    plain = impressions(PLAIN).groupby("item_id")["days"].min()
    assert (plain > 0).sum() < 0.5 * new.sum()
    by_day = shown.groupby("days")["item_id"].nunique()
    assert by_day[by_day.index > 20].mean() == pytest.approx(by_day[by_day.index.isin(range(10))].mean(), rel=0.1)
    assert (
        not set(shown.loc[shown["days"] > 33, "item_id"]) & set(shown.loc[shown["days"] < -20, "item_id"]) - newest_of_category()
    )


def newest_of_category() -> set[str]:
    """Items that stay on sale until their category has another one: those that were the newest of theirs when the drift began."""
    items = world_of(NEW_ITEMS).items
    first = items.catalog_size
    return {f"i{np.flatnonzero(items.category[:first] == category)[-1]:07d}" for category in range(CATEGORIES)}


def test_no_item_is_shown_before_its_release_or_when_it_is_off_sale() -> None:
    world = world_of(NEW_ITEMS)
    items = world.items
    rng = np.random.default_rng(0)
    time_us = rng.integers(world.start_us, world.end_us, 20_000)
    category = rng.integers(0, CATEGORIES, 20_000)
    released = np.searchsorted(items.released_us, time_us, side="right")
    for chance in (rng.random(20_000), np.zeros(20_000), np.full(20_000, np.nextafter(1, 0))):
        anywhere, inside = items.draw(time_us, chance), items.draw_in(category, time_us, chance)
        assert (items.category[inside] == category).all()
        for drawn in (anywhere, inside):
            assert (items.released_us[drawn] <= time_us).all()
        assert (anywhere >= released - items.catalog_size).all()
        off_sale = np.flatnonzero(inside < released - items.catalog_size)
        for one in off_sale[:200]:  # only while its category has no newer item
            assert inside[one] == np.flatnonzero(items.category[: released[one]] == category[one])[-1]
    assert len(items) == items.catalog_size + int(0.03 * items.catalog_size * ((LAST - FROM_DAY).days + 1))


def test_tastes_turn_away_from_those_that_they_were() -> None:
    """The probability of a click of the same users on the same categories, in the same context, day by day."""
    world = world_of(TURNING)
    users = draw_users(world, 0)
    n = len(users.numbers)
    values = {field: users.first[field] for field in coefficients.PROFILE}
    context = {field: np.zeros(n, np.int64) for field in coefficients.CONTEXT_SIGMA if field != "warmth"}
    logits = [
        np.add(*sessions._likings(conditions.tastes, values, context, np.zeros(n))[:2]) + coefficients.INTERCEPT
        for conditions in world.conditions
    ]
    probability = 1.0 / (1.0 + np.exp(-np.stack(logits)))
    assert (probability[0] == probability[1]).all()  # before, and on the first day
    with_first = [np.corrcoef(probability[1].ravel(), day.ravel())[0, 1] for day in probability[1 : TURN_DAYS + 2]]
    assert (np.diff(with_first) < 0.02).all()
    assert with_first[1] > 0.98
    assert with_first[TURN_DAYS // 2] < 0.9
    assert abs(with_first[TURN_DAYS]) < 0.35
    spread = np.log(probability / (1.0 - probability)).std(axis=(1, 2))
    assert (np.abs(spread / spread[0] - 1.0) < 0.4).all()


def test_the_truth_of_the_same_impressions_departs_from_the_world_without_drift() -> None:
    both = impressions(PLAIN).merge(impressions(TURNING), on=["impression_id", "user_id", "item_id", "days"])
    week = both[both["days"].between(-7, TURN_DAYS - 1)]["days"] // 7
    correlation = [one["probability_x"].corr(one["probability_y"]) for _, one in both.groupby(week)]
    assert correlation[0] == pytest.approx(1.0)
    assert all(later < earlier - 0.01 for earlier, later in itertools.pairwise(correlation))


@pytest.mark.parametrize("config", [NEW_ITEMS, TURNING, BOTH], ids=["new items", "tastes", "both"])
def test_the_truth_has_the_click_rates_of_each_day(config: SimulateConfig) -> None:
    rows = impressions(config)
    after = rows[rows["days"] >= 0].assign(variance=rows["probability"] * (1 - rows["probability"]))
    by_day = after.groupby("days")[["label", "probability", "attainable", "variance"]].sum()
    z = (by_day["label"] - by_day["probability"]) / np.sqrt(by_day["variance"])
    assert len(z) == 36
    assert np.abs(z).max() < 4.5
    assert (z**2).sum() < 36 + 5 * np.sqrt(2 * 36)
    week = by_day.groupby(by_day.index // 7).sum()
    assert (np.abs(week["attainable"] / week["probability"] - 1.0) < 0.05).all()


def test_the_attainable_probability_follows_the_drift() -> None:
    """Better than the same predictor that knows the tastes and the catalog of before alone, and worse than the truth."""
    world = world_of(BOTH)
    users = draw_users(world, 0)
    sessions = draw_sessions(world, 0, users)
    clicks = simulate_clicks(world, 0, users, sessions)
    held = held_by_samples(world, users, sessions, clicks)
    late = sessions.time_us >= world.drift_us + 14 * coefficients.DAY_US
    undrifted = dataclasses.replace(world, conditions=world.conditions[:1])
    context = draw_sessions(undrifted, 0, users)
    stale = attainable_probability(undrifted, dataclasses.replace(held, shop_liking=context.shop_liking))
    label = (clicks.click_us > 0)[late].ravel()
    truth, now, before = (p[late].ravel() for p in (clicks.probability, attainable_probability(world, held), stale))
    assert log_loss(label, truth) < log_loss(label, now) < log_loss(label, before) - 0.01
    assert roc_auc_score(label, truth) > roc_auc_score(label, now) > roc_auc_score(label, before) + 0.03


@pytest.mark.parametrize(
    ("drift", "said"),
    [
        (
            {"from_day": "2025-12-02", "taste_turn_days": 9},
            "drift.from_day 2025-12-02 is none of the days 2025-12-03 to 2026-02-14",
        ),
        ({"from_day": "2026-02-15", "taste_turn_days": 9}, "choose one of them"),
        ({"from_day": "2026-02-01"}, "neither new_items_per_day nor taste_turn_days"),
        ({"from_day": "2026-02-01", "new_items_per_day": 1.1}, "less than or equal to 1"),
        ({"from_day": "2026-02-01", "taste_turn_days": 0}, "greater than or equal to 1"),
    ],
)
def test_a_drift_that_cannot_be_is_refused(drift: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SimulateConfig.model_validate({"output": "a", "impressions": 1_000, "first_day": FIRST, "last_day": LAST, "drift": drift})


@pytest.mark.parametrize("drift", [{"new_items_per_day": 0.0}, {"new_items_per_day": 1.0}, {"new_items_per_day": 0.001}])
def test_extreme_rates_and_a_drift_from_the_first_day_on_are_fine(drift: dict[str, float]) -> None:
    config = SimulateConfig(
        output="unused",
        impressions=2_000,
        first_day=FIRST,
        last_day=FIRST + dt.timedelta(days=9),
        drift=DriftConfig(from_day=FIRST, **drift),
    )
    events = simulated_events(config)
    assert pc.sum(pc.is_valid(events["probability"])).as_py() == 2_000
    items = world_of(config).items
    assert len(items) == items.catalog_size + int(10 * drift["new_items_per_day"] * items.catalog_size + 1e-9)


@pytest.mark.long
def test_the_audit_finds_nothing_in_samples_of_a_drifting_world(spark: SparkSession, tmp_path: Path) -> None:
    overrides = [
        f"logs={tmp_path}/logs",
        f"samples={tmp_path}/samples",
        "simulate.impressions=4000",
        "simulate.users=100",
        "simulate.first_day=2026-01-01",
        "simulate.last_day=2026-01-06",
        "simulate.drift.from_day=2026-01-02",
        "simulate.drift.new_items_per_day=0.2",
        "log.complete_to=2026-01-07",
        "splits.train={first: 2026-01-03, last: 2026-01-04}",
        "splits.validation={first: 2026-01-05, last: 2026-01-05}",
        "splits.test={first: 2026-01-06, last: 2026-01-06}",
    ]
    config = load_config(DataConfig, str(ROOT / "conf" / "data" / "drift.yaml"), overrides)
    assert config.simulate is not None
    simulate_logs(spark, config.simulate)
    contract = build_samples(spark, config, dt.date(2026, 1, 3), dt.date(2026, 1, 6)).contract
    assert sum(day.rows for day in contract.days) > 2_000
    assert audit(spark, config, rows=60).findings == []
