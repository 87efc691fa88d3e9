"""The simulator's probabilities and distributions, checked against slow and obvious computations. No Spark."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES, SimulateConfig
from pipeline.simulate import coefficients
from pipeline.simulate.clicks import SimulatedClicks, simulate_clicks
from pipeline.simulate.log_rows import batches, opaque_ids
from pipeline.simulate.sessions import Sessions, draw_sessions
from pipeline.simulate.users import Users, draw_users
from pipeline.simulate.world import World, world_of


def config_of(impressions: int, days: int, users: int | None = None, seed: int = 0) -> SimulateConfig:
    first = dt.date(2025, 12, 1)
    return SimulateConfig(
        output="unused",
        impressions=impressions,
        users=users,
        first_day=first,
        last_day=first + dt.timedelta(days=days - 1),
        seed=seed,
    )


def simulate(config: SimulateConfig) -> tuple[World, Users, Sessions, SimulatedClicks]:
    world = world_of(config)
    users = draw_users(world, 0)
    sessions = draw_sessions(world, 0, users)
    return world, users, sessions, simulate_clicks(world, 0, users, sessions)


def slow_interest(past: pd.DataFrame, time_us: int, category: int, brand: int) -> float:
    """What docs/concepts/simulated-world.md says, click by click."""
    known = past[(past["time_us"] < time_us) & (past["time_us"] >= time_us - 29 * 86_400_000_000)]
    category_weight = brand_weight = 0.0
    for rank, click in enumerate(known.sort_values("time_us", ascending=False).head(30).itertuples()):
        age_days = (time_us - click.time_us) / 86_400_000_000
        weight = 1 / (1 + rank / 4) * math.exp(-age_days / 10)
        category_weight += weight * (click.category == category)
        brand_weight += weight * (click.brand == brand)
    return 1.5 * (1 - math.exp(-category_weight)) + 0.7 * (1 - math.exp(-brand_weight))


@pytest.mark.parametrize(
    ("impressions", "days", "user_count"), [(6_000, 60, 50), (4_000, 2, 10)], ids=["a usual shop", "users who click all day"]
)
def test_interest_comes_from_the_clicks_that_the_log_has_before_the_impression(
    impressions: int, days: int, user_count: int
) -> None:
    world, users, sessions, simulated_clicks = simulate(config_of(impressions, days, user_count))
    rows = pa.Table.from_batches(list(batches(world, 0, users, sessions, simulated_clicks))).to_pandas()
    clicks = rows[rows["log"] == "clicks"].drop_duplicates(["impression_id", "event_time"])
    item = clicks["item_id"].str[1:].astype(int).to_numpy()
    clicks = clicks.assign(
        time_us=clicks["event_time"].astype("datetime64[us, UTC]").astype(np.int64),
        category=world.items.category[item],
        brand=world.items.brand[item],
    )
    busiest = np.argsort(np.bincount(sessions.user))[::-1][:2]
    checked = 0
    for user in busiest:
        past = clicks[clicks["user_id"] == users.ids()[int(user)].as_py()]
        for session in np.flatnonzero(sessions.user == user)[::3]:
            for slot in range(0, sessions.shown[session], 2):
                shown = simulated_clicks.item[session, slot]
                expected = slow_interest(past, sessions.time_us[session], world.items.category[shown], world.items.brand[shown])
                assert simulated_clicks.interest[session, slot] == pytest.approx(expected, abs=1e-9)
                checked += expected > 0
    assert checked > 50


def test_the_probability_is_the_logistic_function_of_the_documented_parts() -> None:
    world, users, sessions, simulated_clicks = simulate(config_of(3_000, 40))
    items, tastes = world.items, world.tastes
    rng = np.random.default_rng(0)
    for session in rng.choice(len(sessions.time_us), 40, replace=False):
        time_us, user = int(sessions.time_us[session]), int(sessions.user[session])
        when = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=time_us)
        city = int(sessions.city[session])
        north = coefficients.CITIES[city] in coefficients.CITIES_NORTH
        warmth = (1 if north else -1) * math.cos(2 * math.pi * (when.timetuple().tm_yday - 196) / 365.25)
        profile = {
            field: int((users.later if time_us >= users.change_us[field][user] else users.first)[field][user])
            for field in coefficients.PROFILE
        }
        needs = {
            int(users.demand_category[user, d])
            for d in range(users.demand_category.shape[1])
            if users.demand_from_us[user, d] <= time_us < users.demand_until_us[user, d]
        }
        for slot in range(sessions.shown[session]):
            item = simulated_clicks.item[session, slot]
            c = items.category[item]
            logit = -2.6 + tastes.category[c] + items.quality[item]
            logit += sum(table[profile[field], c] for field, table in tastes.profile.items())
            logit += warmth * tastes.context["warmth"][0, c]
            logit += tastes.context["hours"][when.hour // 4, c] + tastes.context["weekday"][when.weekday(), c]
            logit += tastes.context["device"][sessions.device[session], c] + tastes.context["city"][city, c]
            logit += tastes.context["weather"][sessions.weather[session], c] + tastes.context["page"][sessions.page[session], c]
            logit += [0.0, 0.2, -0.2, 0.35][sessions.page[session]] - 0.4 * math.log(slot + 1)
            logit += items.price_z[item] * (-0.15 + sum(table[profile[field]] for field, table in tastes.price.items()))
            logit += 1.6 * (c in needs) + simulated_clicks.interest[session, slot]
            assert simulated_clicks.probability[session, slot] == pytest.approx(0.99 / (1 + math.exp(-logit)), abs=1e-9)


def test_quiet_users_are_away_for_weeks_and_come_back() -> None:
    _, users, sessions, _ = simulate(config_of(40_000, 74))
    away_days = (users.quiet_until_us - users.quiet_from_us) / coefficients.DAY_US
    assert 0.1 < (away_days >= 14).mean() < 0.3
    time_us, user = sessions.time_us, sessions.user
    assert not ((users.quiet_from_us[user] <= time_us) & (time_us < users.quiet_until_us[user])).any()
    before = np.bincount(user[time_us < users.quiet_from_us[user]], minlength=len(away_days)) > 0
    after = np.bincount(user[time_us >= users.quiet_until_us[user]], minlength=len(away_days)) > 0
    assert (before & after)[away_days >= 14].mean() > 0.5


def test_activity_has_a_heavy_tail_at_every_size() -> None:
    for impressions in (600_000, 20_000_000):
        world = world_of(config_of(impressions, 74))
        activity: NDArray[np.int64] = np.sort(world.user_impressions)[::-1]
        assert activity.sum() == impressions
        assert 0.009 < activity[0] / impressions < 0.02
        assert activity[0] > 50 * np.median(activity)


def test_a_user_s_sessions_are_in_order_and_within_the_period() -> None:
    world, users, sessions, _ = simulate(config_of(20_000, 30))
    frame = pd.DataFrame({"user": sessions.user, "time_us": sessions.time_us, "first": sessions.first_impression})
    assert frame.groupby("user")["time_us"].apply(lambda times: times.is_monotonic_increasing).all()
    assert frame.groupby("user")["first"].apply(lambda numbers: numbers.is_monotonic_increasing).all()
    assert frame["time_us"].between(world.start_us, world.end_us - 1).all()
    assert (sessions.time_us >= users.joined_us[sessions.user]).all()


def test_items_are_drawn_from_their_category_among_the_released_and_by_popularity() -> None:
    world = world_of(config_of(100_000, 30))
    items = world.items
    rng = np.random.default_rng(1)
    category = rng.integers(0, CATEGORIES, 20_000)
    time_us = rng.integers(world.start_us, world.end_us, 20_000)
    for chance in (rng.random(20_000), np.zeros(20_000), np.full(20_000, np.nextafter(1, 0))):
        drawn = items.draw_in(category, time_us, chance)
        assert (items.category[drawn] == category).all()
        assert (items.released_us[drawn] <= time_us).all()
        assert (items.released_us[items.draw(time_us, chance)] <= time_us).all()
    popularity = np.diff(items.cumulative, prepend=0.0)
    drawn = items.draw(np.full(200_000, world.end_us), rng.random(200_000))
    expected = popularity / popularity.sum() * 200_000
    assert ((np.bincount(drawn, minlength=len(items)) - expected) ** 2 / expected).sum() < 1.2 * len(items)


def test_ids_are_opaque_and_different() -> None:
    ids = opaque_ids(np.arange(100_000), np.uint64(42)).to_pylist()
    assert len(set(ids)) == 100_000
    assert all(len(identifier) == 16 for identifier in ids[:100])
    assert ids[:100] != sorted(ids[:100])


def test_another_seed_is_another_world() -> None:
    one, other = (simulate(config_of(1_000, 10, seed=seed))[3] for seed in (1, 2))
    assert one.item.shape != other.item.shape or (one.item != other.item).any()


def test_a_world_of_one_day_and_users_without_impressions_is_fine() -> None:
    world, users, sessions, simulated_clicks = simulate(config_of(1_000, 1, users=5_000))
    assert (world.user_impressions == 0).any()
    assert sum(batch.num_rows for batch in batches(world, 0, users, sessions, simulated_clicks)) > 0
