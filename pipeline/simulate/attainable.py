"""What the best predictor knows that reads samples: the simulator's coefficients, and of each impression what a sample holds.

No sample holds what a user needs at the moment, the profile of a user who is in no snapshot, or what changed in a profile since the last
one. The probability of a click is the mean over all that they may be, by the distributions that they are drawn from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES
from pipeline.simulate import coefficients
from pipeline.simulate.clicks import POSITION_EFFECTS, SimulatedClicks
from pipeline.simulate.drift import Conditions, Tastes
from pipeline.simulate.sessions import Sessions
from pipeline.simulate.users import Users
from pipeline.simulate.world import World

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNLISTED = -1
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)  # type: ignore[no-untyped-call]
"""Of the mean over a normal distribution, by Gauss-Hermite quadrature."""


@dataclass(frozen=True, eq=False)
class Held:
    """What samples hold of S sessions of K impressions, beside the coefficients; all times are microseconds since 1970, UTC."""

    time_us: Ints
    """(S,)"""
    item: Ints
    """(S, K)"""
    shop_liking: Floats
    """(S, C), what category and context add to the logit."""
    interest: Floats
    """(S, K), what the clicks of the history add."""
    snapshot_us: Ints
    """(S,), of the latest snapshot of the users."""
    profile: dict[str, Ints]
    """By field, (S,): the value in that snapshot, ``UNLISTED`` where the user is not in it."""

    def where(self, chosen: Ints) -> Held:
        """The same of some of the sessions."""
        return Held(
            self.time_us[chosen],
            self.item[chosen],
            self.shop_liking[chosen],
            self.interest[chosen],
            self.snapshot_us[chosen],
            {field: value[chosen] for field, value in self.profile.items()},
        )


def held_by_samples(world: World, users: Users, sessions: Sessions, simulated_clicks: SimulatedClicks) -> Held:
    """Leave out of a chunk what no sample holds."""
    every_us = coefficients.SNAPSHOT_DAYS * coefficients.DAY_US
    snapshot_us = world.start_us + (sessions.time_us - world.start_us) // every_us * every_us
    listed = users.listed_us[sessions.user] <= snapshot_us
    profile = {
        field: np.where(listed, users.value(field, sessions.user, snapshot_us), UNLISTED) for field in coefficients.PROFILE_SIGMA
    }
    return Held(sessions.time_us, simulated_clicks.item, sessions.shop_liking, simulated_clicks.interest, snapshot_us, profile)


def attainable_probability(world: World, held: Held) -> Floats:
    """The probability of a click within the attribution window, (S, K), given the coefficients and what samples hold.

    What a profile adds to the logit is a sum over fields; its mean and variance are exact, its distribution is taken to be normal. That an
    item is shown says something of a profile, as some slots are filled by what suits it; nothing is concluded from past clicks.
    """
    # all sessions at once: the last digits of a matrix product depend on its size, and those before a drift are to be the same
    clicks = _probability(world, world.conditions[0], held)
    for where, conditions in world.drifted(held.time_us):
        clicks[where] = _probability(world, conditions, held.where(where))
    return clicks * (1.0 - coefficients.LATE_CLICK_SHARE)


def _probability(world: World, conditions: Conditions, held: Held) -> Floats:
    """The probability of a click at any time, (S, K), in sessions that have the same conditions."""
    items = world.items
    category, price_z = items.category[held.item], items.price_z[held.item]
    mean, variance, tilt = _profile_effect(world, conditions.tastes, held, category, price_z)
    logit = (
        coefficients.INTERCEPT
        + np.take_along_axis(held.shop_liking, category, axis=1)
        + items.quality[held.item]
        + coefficients.PRICE_EFFECT * price_z
        + POSITION_EFFECTS
        + held.interest
        + mean
    )
    deviation = np.sqrt(np.maximum(variance, 0.0))
    need = _need_probability((held.time_us - world.start_us) / coefficients.DAY_US)[:, None]
    suits = _shown_for_profile(conditions)[category]
    clicks = np.zeros(logit.shape)
    for chance, added in (
        ((1.0 - need) * (1.0 - suits), 0.0),
        ((1.0 - need) * suits, tilt),
        (need * (1.0 - suits), coefficients.DEMAND_EFFECT),
        (need * suits, tilt + coefficients.DEMAND_EFFECT),
    ):
        clicks += chance * _mean_click(logit + added, deviation)
    return clicks


def _profile_effect(world: World, tastes: Tastes, held: Held, category: Ints, price_z: Floats) -> tuple[Floats, Floats, Floats]:
    """What profile fields add to the logit, the price included: mean, variance and tilt, each (S, K).

    The tilt is by how much the mean is higher where an item was shown because its category suits the profile: that is drawn by the
    exponential of the profile's liking, which moves a normal distribution by its covariance with that liking.
    """
    mean, variance, tilt = (np.zeros(category.shape) for _ in range(3))
    for field, taste in tastes.profile.items():
        weight = _value_weights(world, held, field)  # (S, V)
        price = tastes.price.get(field, np.zeros(len(taste)))

        def in_category(table: Floats, weight: Floats = weight) -> Floats:
            return np.take_along_axis(weight @ table, category, axis=1)

        taste_mean, price_mean = in_category(taste), (weight @ price)[:, None]
        taste_variance = in_category(taste**2) - taste_mean**2
        covariance = in_category(taste * price[:, None]) - taste_mean * price_mean
        mean += taste_mean + price_z * price_mean
        tilt += taste_variance + price_z * covariance
        variance += taste_variance + 2 * price_z * covariance + price_z**2 * ((weight @ price**2)[:, None] - price_mean**2)
    return mean, variance, tilt


def _shown_for_profile(conditions: Conditions) -> Floats:
    """By category, (C,): the share of its impressions that are in slots filled by what suits a profile, the others being by popularity."""
    liking = sum(
        (
            np.log(np.array(list(coefficients.PROFILE[field].values())) @ np.exp(taste))
            for field, taste in conditions.tastes.profile.items()
        ),
        np.zeros(CATEGORIES),
    )
    suiting = coefficients.PROFILE_SLOT_SHARE * np.exp(liking) / np.exp(liking).sum()
    popularity = conditions.category_popularity
    others = (1.0 - coefficients.PROFILE_SLOT_SHARE) * popularity / popularity.sum()
    share: Floats = suiting / (suiting + others)
    return share


def _value_weights(world: World, held: Held, field: str) -> Floats:
    """The probability of each value of a profile field at the time of each session, (S, V)."""
    drawn = np.array(list(coefficients.PROFILE[field].values()))
    drawn /= drawn.sum()
    count = len(drawn)
    later = np.tile(drawn, (count, 1))  # (V, V): by the value before, the probability of each value after a change
    if field == "membership":
        later = np.eye(count)[np.minimum(np.arange(count) + 1, count - 1)]
    known = held.profile[field]
    changed_before = _changed(field, held.snapshot_us - world.start_us)
    changed_since = (1.0 - changed_before) * _changed(field, held.time_us - held.snapshot_us)
    changed = np.where(known == UNLISTED, _changed(field, held.time_us - world.start_us), changed_since)[:, None]
    before = np.where((known == UNLISTED)[:, None], drawn, np.eye(count)[known])
    weights: Floats = (1.0 - changed) * before + changed * (before @ later)
    return weights


def _changed(field: str, span_us: Ints) -> Floats:
    """The probability that a field changes within a time."""
    if field not in coefficients.CHANGE_DAYS:
        return np.zeros(len(span_us))
    changed: Floats = -np.expm1(-span_us / coefficients.DAY_US / coefficients.CHANGE_DAYS[field])
    return changed


def _need_probability(days: Floats) -> Floats:
    """That a user needs a given category so many days after the first day: that a need began, and lasts still."""
    shortest, longest = coefficients.DEMAND_DAYS
    late = np.clip(days, shortest, longest)
    # the integral, over the days since a need began, of the probability that it lasts as long
    lasting = np.minimum(days, shortest) + ((longest - shortest) ** 2 - (longest - late) ** 2) / (2 * (longest - shortest))
    needed: Floats = -np.expm1(-lasting / coefficients.DEMAND_EVERY_DAYS / CATEGORIES)
    return needed


def _mean_click(logit: Floats, deviation: Floats) -> Floats:
    """The mean of the sigmoid of a normal variable."""
    total = np.zeros(logit.shape)
    for node, weight in zip(_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum(), strict=True):
        total += weight / (1.0 + np.exp(-(logit + node * deviation)))
    return total
