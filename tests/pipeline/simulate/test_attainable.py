"""The predictor that knows the coefficients and what samples hold: what it must not know, and how good it is. No Spark."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from pipeline.config.simulation import CATEGORIES, SimulateConfig
from pipeline.simulate import attainable, coefficients
from pipeline.simulate.attainable import UNLISTED, Held, attainable_probability, held_by_samples
from pipeline.simulate.clicks import SimulatedClicks, simulate_clicks
from pipeline.simulate.memory import NO_CLICK
from pipeline.simulate.sessions import Sessions, draw_sessions
from pipeline.simulate.users import NEVER, Users, draw_users
from pipeline.simulate.world import World, world_of


@pytest.fixture(scope="module")
def simulated() -> tuple[World, Users, Sessions, SimulatedClicks]:
    """One chunk of users, who see 120 impressions each, as in the demo."""
    first = dt.date(2025, 12, 3)
    world = world_of(
        SimulateConfig(output="unused", impressions=60_000, users=500, first_day=first, last_day=first + dt.timedelta(days=73))
    )
    users = draw_users(world, 0)
    sessions = draw_sessions(world, 0, users)
    return world, users, sessions, simulate_clicks(world, 0, users, sessions)


@pytest.fixture(scope="module")
def held(simulated: tuple[World, Users, Sessions, SimulatedClicks]) -> Held:
    return held_by_samples(*simulated)


def test_what_no_sample_holds_changes_nothing(simulated: tuple[World, Users, Sessions, SimulatedClicks], held: Held) -> None:
    world, users, sessions, simulated_clicks = simulated
    rng = np.random.default_rng(0)
    order = rng.permutation(len(users.numbers))
    last_snapshot = world.start_us + (world.end_us - 1 - world.start_us) // (7 * coefficients.DAY_US) * 7 * coefficients.DAY_US
    first, later = dict(users.first), dict(users.later)
    for field in coefficients.PROFILE:
        in_no_snapshot = users.listed_us == NEVER
        after_all_snapshots = users.change_us[field] > last_snapshot
        assert in_no_snapshot.any()
        first[field] = np.where(in_no_snapshot, first[field][order], first[field])
        later[field] = np.where(in_no_snapshot | after_all_snapshots, later[field][order], later[field])
    others = dataclasses.replace(
        users,
        first=first,
        later=later,
        main_device=users.main_device[order],
        demand_from_us=users.demand_from_us[order],
        demand_until_us=users.demand_until_us[order],
        demand_category=rng.permuted(users.demand_category, axis=1),
    )
    other_sessions = dataclasses.replace(
        sessions,
        liking=rng.permutation(sessions.liking),
        profile_liking=rng.permutation(sessions.profile_liking),
        price_effect=rng.permutation(sessions.price_effect),
    )
    other_played = dataclasses.replace(simulated_clicks, probability=rng.permutation(simulated_clicks.probability))
    other = held_by_samples(world, others, other_sessions, other_played)
    np.testing.assert_array_equal(attainable_probability(world, other), attainable_probability(world, held))


def test_it_is_calibrated_and_better_than_a_fitted_model_and_worse_than_the_truth(
    simulated: tuple[World, Users, Sessions, SimulatedClicks], held: Held
) -> None:
    world, _, sessions, simulated_clicks = simulated
    shown = np.arange(coefficients.SLATE) < sessions.shown[:, None]
    in_time = simulated_clicks.click_us - sessions.time_us[:, None] <= coefficients.ATTRIBUTION_HOURS * coefficients.HOUR_US
    labels = ((simulated_clicks.click_us != NO_CLICK) & in_time)[shown]
    predicted, truth = attainable_probability(world, held)[shown], simulated_clicks.probability[shown]

    def by_impression(values: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(values[:, None], shown.shape)[shown]

    # A click says of its user what this predictor does not conclude, so that it is a little low: by under 3 % here, 1 % for the listed.
    for where, off in ((np.ones(len(labels), bool), 0.03), (by_impression(held.profile["gender"]) != UNLISTED, 0.01)):
        assert abs(predicted[where].sum() / truth[where].sum() - 1) < off
        noise = 4 * np.sqrt((truth * (1 - truth))[where].sum())
        assert abs(predicted[where].sum() - labels[where].sum()) < noise + off * labels[where].sum()

    columns = [
        *(by_impression(column) for column in (sessions.city, sessions.weather, sessions.device, sessions.page)),
        by_impression(held.time_us % coefficients.DAY_US // coefficients.HOUR_US),
        *(by_impression(column) for column in held.profile.values()),
        np.broadcast_to(np.arange(coefficients.SLATE), shown.shape)[shown],
        *(table[held.item][shown] for table in (world.items.category, world.items.price_z)),
        held.interest[shown],
    ]
    features = np.column_stack(columns)
    test = by_impression(held.time_us) >= world.start_us + 55 * coefficients.DAY_US
    model = HistGradientBoostingClassifier(random_state=0).fit(features[~test], labels[~test])
    fitted = roc_auc_score(labels[test], model.predict_proba(features[test])[:, 1])
    assert 0.6 < fitted < roc_auc_score(labels[test], predicted[test]) < roc_auc_score(labels[test], truth[test])


@pytest.mark.parametrize("days", [0.5, 2.0, 5.0, 40.0])
def test_needs_are_as_frequent_as_it_says(simulated: tuple[World, Users, Sessions, SimulatedClicks], days: float) -> None:
    world, users, _, _ = simulated
    time_us = world.start_us + days * coefficients.DAY_US
    active = (users.demand_from_us <= time_us) & (time_us < users.demand_until_us)
    needed = {(user, users.demand_category[user, d]) for user, d in zip(*np.nonzero(active), strict=True)}
    trials = len(users.numbers) * CATEGORIES
    expected = attainable._need_probability(np.array([days]))[0]
    low, high = stats.binom.interval(1 - 1e-5, trials, expected)
    assert low <= len(needed) <= high


@pytest.mark.parametrize("field", ["gender", "occupation", "membership"])
def test_profiles_are_as_it_says(simulated: tuple[World, Users, Sessions, SimulatedClicks], held: Held, field: str) -> None:
    """Of users with and without a snapshot; each user counts once, in the last session."""
    world, users, sessions, _ = simulated
    last = np.unique(sessions.user[::-1], return_index=True)[1]
    session = len(sessions.user) - 1 - last
    values = users.value(field, sessions.user[session], sessions.time_us[session])
    weights = attainable._value_weights(world, held, field)[session]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    for where in (held.profile[field][session] == UNLISTED, held.profile[field][session] != UNLISTED):
        for value in range(weights.shape[1]):
            expected, found = weights[where, value], values[where] == value
            assert abs(found.sum() - expected.sum()) <= 4.5 * np.sqrt((expected * (1 - expected)).sum()) + 1e-9


def test_the_mean_of_a_sigmoid_is_that_of_the_integral() -> None:
    for logit, deviation in ((-2.6, 0.0), (-2.6, 0.6), (0.5, 1.0)):
        expected, _ = quad(lambda x, m=logit, s=deviation: stats.norm.pdf(x) / (1 + np.exp(-(m + s * x))), -9, 9)
        found = attainable._mean_click(np.array([[logit]]), np.array([[deviation]]))[0, 0]
        assert found == pytest.approx(expected, abs=1e-5)
