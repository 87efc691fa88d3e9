"""Lets the users of a chunk live through their sessions: what they are shown, and what they click."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import coefficients
from pipeline.simulate.items import Items
from pipeline.simulate.memory import NO_CLICK, ClickMemory, Recall
from pipeline.simulate.sessions import Sessions
from pipeline.simulate.streams import Stream, generator
from pipeline.simulate.users import Users
from pipeline.simulate.world import World

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

POSITION_EFFECTS = coefficients.POSITION_EFFECT * np.log(np.arange(1, coefficients.SLATE + 1))
_DRAWN = coefficients.SLATE + coefficients.SPARE_SLOTS
_EARLIER = np.tril(np.ones((_DRAWN, _DRAWN), np.bool_), -1)


@dataclass(frozen=True, eq=False)
class SimulatedClicks:
    """What happened in S sessions, at K positions; beyond a session's ``shown`` nothing did."""

    item: Ints
    """(S, K)"""
    probability: Floats
    """(S, K), of a click within the attribution window, given everything."""
    interest: Floats
    """(S, K), the part of the logit that past clicks added."""
    click_us: Ints
    """(S, K), when it was clicked, or ``NO_CLICK``."""
    orphan_us: Ints
    """(S, K), when an item that no impression shows was clicked, or ``NO_CLICK``."""
    orphan_item: Ints
    """(S, K)"""


@dataclass(frozen=True, eq=False)
class _Chances:
    """What is drawn in advance for S sessions."""

    item: Ints
    """(S, N): what is shown unless an interest takes the slot; N slots with the spare ones."""
    takes_interest: Bools
    """(S, N)"""
    remembered: Floats
    """(S, N), uniform: which of the last clicks."""
    category_draws: Floats
    """(S, N), uniform: which item of its category."""
    click: Floats
    """(S, K), uniform."""
    delay_us: Ints
    """(S, K), from impression to click."""
    orphan: Bools
    """(S, K), whether a click is followed by one without an impression."""
    orphan_delay_us: Ints
    """(S, K), from the click to that one."""
    orphan_item: Ints
    """(S, K)"""


def simulate_clicks(world: World, chunk: int, users: Users, sessions: Sessions) -> SimulatedClicks:
    """Play the sessions of a chunk, step by step: one session of every user at a time."""
    items = world.items
    chances = _draw(world, chunk, sessions)
    shape = (len(sessions.time_us), coefficients.SLATE)
    item = np.zeros(shape, np.int64)
    probability, interest = np.zeros(shape), np.zeros(shape)
    click_us, orphan_us = np.full(shape, NO_CLICK), np.full(shape, NO_CLICK)
    memory = ClickMemory(len(users.numbers), _memory_width(world, users))

    start = 0
    for size in sessions.step_sizes:
        step = slice(start, start + int(size))
        start = step.stop
        time_us = sessions.time_us[step]
        recall = memory.recall(time_us)
        slate = _slate(items, memory, recall, chances, step, time_us)
        category, brand = items.category[slate], items.brand[slate]
        interest[step] = memory.interest(recall, category, brand)
        logit = (
            coefficients.INTERCEPT
            + np.take_along_axis(sessions.liking[step], category, axis=1)
            + items.quality[slate]
            + sessions.price_effect[step, None] * items.price_z[slate]
            + POSITION_EFFECTS
            + interest[step]
        )
        clicks = 1.0 / (1.0 + np.exp(-logit))
        clicked = (chances.click[step] < clicks) & (np.arange(coefficients.SLATE) < sessions.shown[step, None])
        item[step] = slate
        probability[step] = clicks * (1.0 - coefficients.LATE_CLICK_SHARE)
        click_us[step] = np.where(clicked, time_us[:, None] + chances.delay_us[step], NO_CLICK)
        orphans = clicked & chances.orphan[step]
        orphan_us[step] = np.where(orphans, click_us[step] + chances.orphan_delay_us[step], NO_CLICK)

        row = np.flatnonzero(clicked.any(axis=1))
        if len(row):
            other = chances.orphan_item[step][row]
            memory.add(
                row,
                np.concatenate([click_us[step][row], orphan_us[step][row]], axis=1),
                np.concatenate([category[row], items.category[other]], axis=1),
                np.concatenate([brand[row], items.brand[other]], axis=1),
            )
    return SimulatedClicks(item, probability, interest, click_us, orphan_us, chances.orphan_item)


def _memory_width(world: World, users: Users) -> int:
    """Room for the last clicks and for those of the busiest user that are still to come (late ones wait for days)."""
    busiest = int(world.user_impressions[users.numbers.start : users.numbers.stop].max())
    per_day = busiest / world.config.days
    return coefficients.MEMORY_CLICKS + 2 * coefficients.SLATE + int(per_day * 0.02)


def _slate(items: Items, memory: ClickMemory, recall: Recall, chances: _Chances, step: slice, time_us: Ints) -> Ints:
    """The items shown, (U, K): the drawn ones, some replaced by interest, without those that came up before."""
    drawn = chances.item[step].copy()
    user, slot = np.nonzero(chances.takes_interest[step] & (recall.known > 0)[:, None])
    if len(user):
        last = np.minimum(recall.known[user], coefficients.INTEREST_SLOT_CLICKS)
        place = recall.pending[user] + (chances.remembered[step][user, slot] * last).astype(np.int64)
        drawn[user, slot] = items.draw_in(memory.category[user, place], time_us[user], chances.category_draws[step][user, slot])
    again = ((drawn[:, :, None] == drawn[:, None, :]) & _EARLIER).any(axis=2)
    keep = np.argsort(again, axis=1, kind="stable")[:, : coefficients.SLATE]
    return np.take_along_axis(drawn, keep, axis=1)


def _draw(world: World, chunk: int, sessions: Sessions) -> _Chances:
    items, seed = world.items, world.config.seed
    rng = generator(seed, Stream.EXPOSURE, chunk)
    n = len(sessions.time_us)
    slots = (n, _DRAWN)
    time_us = np.broadcast_to(sessions.time_us[:, None], slots)
    source = rng.random(slots)
    item = items.draw(time_us, rng.random(slots))
    session, slot = np.nonzero(source < coefficients.PROFILE_SLOT_SHARE)
    appeal = np.cumsum(np.exp(sessions.profile_liking), axis=1)[session]  # (slots, C)
    category = (appeal <= (rng.random(len(session)) * appeal[:, -1])[:, None]).sum(axis=1)
    item[session, slot] = items.draw_in(category, sessions.time_us[session], rng.random(len(session)))
    remembered, category_draws = rng.random(slots), rng.random(slots)

    rng = generator(seed, Stream.CLICKS, chunk)
    shown = (n, coefficients.SLATE)
    seconds = np.clip(
        coefficients.DELAY_MEDIAN_SECONDS * rng.lognormal(0, coefficients.DELAY_SIGMA, shown), *coefficients.DELAY_SECONDS
    )
    late = (coefficients.ATTRIBUTION_HOURS + 1.0 + rng.exponential(coefficients.LATE_MEAN_HOURS, shown)) * 3600
    delay = np.where(rng.random(shown) < coefficients.LATE_CLICK_SHARE, late, seconds)
    return _Chances(
        item=item,
        takes_interest=source > 1.0 - coefficients.INTEREST_SLOT_SHARE,
        remembered=remembered,
        category_draws=category_draws,
        click=rng.random(shown),
        delay_us=(delay * coefficients.SECOND_US).astype(np.int64),
        orphan=rng.random(shown) < coefficients.ORPHAN_SHARE,
        orphan_delay_us=(rng.uniform(*coefficients.ORPHAN_SECONDS, shown) * coefficients.SECOND_US).astype(np.int64),
        orphan_item=items.draw(time_us[:, : coefficients.SLATE], rng.random(shown)),
    )
