"""The sessions of a chunk of users: when, where and on what; and what each session's user likes, before any click."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES
from pipeline.simulate import coefficients
from pipeline.simulate.drift import Tastes
from pipeline.simulate.streams import Stream, generator
from pipeline.simulate.users import Users
from pipeline.simulate.world import World

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MONDAY_OFFSET = 3  # 1970-01-01 was a Thursday


@dataclass(frozen=True, eq=False)
class Sessions:
    """S sessions, in steps: first the first session of every user, then the second of those who have two, and so on.

    Within a step the users come in one fixed order, those with the most sessions first, so that a step's users are always the
    first ``step_sizes[i]`` of that order.
    """

    step_sizes: Ints
    user: Ints
    """(S,), index into the chunk's users."""
    shown: Ints
    """(S,), number of items shown; a user's last slate may be short."""
    first_impression: Ints
    """(S,), the number in the world of the impression at position 1."""
    time_us: Ints
    """(S,), microseconds since 1970, UTC; ascending for each user."""
    city: Ints
    weather: Ints
    device: Ints
    page: Ints
    shop_liking: Floats
    """(S, C), what the category and the context add to the logit."""
    profile_liking: Floats
    """(S, C), what the profile adds to the logit."""
    liking: Floats
    """(S, C), what the category, the profile, the context and the needs of the moment add to the logit."""
    price_effect: Floats
    """(S,), times an item's standardized log price."""


def draw_sessions(world: World, chunk: int, users: Users) -> Sessions:
    """The sessions of a chunk, from the world's seed."""
    rng = generator(world.config.seed, Stream.SESSIONS, chunk)
    impressions = world.user_impressions[users.numbers.start : users.numbers.stop]
    sessions = -(-impressions // coefficients.SLATE)
    user = np.repeat(np.arange(len(impressions)), sessions)
    time_us = _times(rng, world, users, user)
    user_order = np.lexsort((time_us, user))
    time_us = time_us[user_order]  # ``user`` is ascending already

    turn = np.arange(len(user)) - np.repeat(np.cumsum(sessions) - sessions, sessions)
    rank = np.empty(len(impressions), np.int64)
    rank[np.argsort(-sessions, kind="stable")] = np.arange(len(impressions))
    steps = np.lexsort((rank[user], turn))
    user, turn, time_us = user[steps], turn[steps], time_us[steps]

    n = len(user)
    day = (time_us - world.start_us) // coefficients.DAY_US
    at_home = rng.random(n) < coefficients.AT_HOME_SHARE
    city = np.where(at_home, users.value("home_city", user, time_us), rng.integers(0, len(coefficients.CITIES), n))
    on_main = rng.random(n) < coefficients.MAIN_DEVICE_SHARE
    device = np.where(
        on_main, users.main_device[user], rng.choice(len(coefficients.DEVICES), n, p=list(coefficients.DEVICES.values()))
    )
    page = rng.choice(len(coefficients.PAGES), n, p=list(coefficients.PAGES.values()))
    weather = world.weather[city, day]

    values = {field: users.value(field, user, time_us) for field in coefficients.PROFILE}
    context = {
        "hours": time_us % coefficients.DAY_US // (coefficients.HOURS_PER_BLOCK * coefficients.HOUR_US),
        "weekday": (time_us // coefficients.DAY_US + _MONDAY_OFFSET) % 7,
        "device": device,
        "city": city,
        "weather": weather,
        "page": page,
    }
    warmth = world.warmth[city, day]
    shop_liking, profile_liking, price_effect = _likings(world.tastes, values, context, warmth)
    for where, conditions in world.drifted(time_us):
        drifted = _likings(conditions.tastes, _at(values, where), _at(context, where), warmth[where])
        shop_liking[where], profile_liking[where], price_effect[where] = drifted
    shop_liking += np.array(list(coefficients.PAGE_EFFECT.values()))[page][:, None]
    liking = shop_liking + profile_liking
    _add_demands(liking, users, user, time_us)
    return Sessions(
        step_sizes=np.bincount(turn),
        user=user,
        shown=np.minimum(impressions[user] - turn * coefficients.SLATE, coefficients.SLATE),
        first_impression=world.first_impression[users.numbers.start + user] + turn * coefficients.SLATE,
        time_us=time_us,
        city=city,
        weather=weather,
        device=device,
        page=page,
        shop_liking=shop_liking,
        profile_liking=profile_liking,
        liking=liking,
        price_effect=price_effect,
    )


def _times(rng: np.random.Generator, world: World, users: Users, user: Ints) -> Ints:
    """A day spread evenly over the time that the user is there, and an instant of that day by the hours' weights."""
    away = users.quiet_until_us - users.quiet_from_us
    present = rng.random(len(user)) * (world.end_us - users.joined_us - away)[user]
    moment = users.joined_us[user] + present.astype(np.int64)
    moment += np.where(moment >= users.quiet_from_us[user], away[user], 0)
    weights = np.array(coefficients.HOUR_WEIGHTS, dtype=np.float64)
    hour = rng.choice(24, len(user), p=weights / weights.sum())
    time_us: Ints = (
        moment // coefficients.DAY_US * coefficients.DAY_US
        + hour * coefficients.HOUR_US
        + rng.integers(0, coefficients.HOUR_US, len(user))
    )
    return time_us


def _likings(tastes: Tastes, values: dict[str, Ints], context: dict[str, Ints], warmth: Floats) -> tuple[Floats, Floats, Floats]:
    """What shop and context (S, C) and the profile (S, C) add to the logit, and the price effects (S,)."""
    n = len(warmth)
    profile_liking = sum((table[values[field]] for field, table in tastes.profile.items()), np.zeros((n, CATEGORIES)))
    price_effect = sum((table[values[field]] for field, table in tastes.price.items()), np.full(n, coefficients.PRICE_EFFECT))
    return tastes.category + _context_liking(tastes, context, warmth), profile_liking, price_effect


def _at(fields: dict[str, Ints], where: Ints) -> dict[str, Ints]:
    return {field: value[where] for field, value in fields.items()}


def _context_liking(tastes: Tastes, context: dict[str, Ints], warmth: Floats) -> Floats:
    liking = warmth[:, None] * tastes.context["warmth"]
    for field, value in context.items():
        liking += tastes.context[field][value]
    return liking


def _add_demands(liking: Floats, users: Users, user: Ints, time_us: Ints) -> None:
    """Raise the categories that each session's user needs at its time; two needs of one category count once."""
    for d in range(users.demand_category.shape[1]):
        active = (users.demand_from_us[user, d] <= time_us) & (time_us < users.demand_until_us[user, d])
        for earlier in range(d):
            active &= ~(
                (users.demand_category[user, earlier] == users.demand_category[user, d])
                & (users.demand_from_us[user, earlier] <= time_us)
                & (time_us < users.demand_until_us[user, earlier])
            )
        session = np.flatnonzero(active)
        liking[session, users.demand_category[user[session], d]] += coefficients.DEMAND_EFFECT
