"""What a drift changes from one day to the next: the tastes, and what is on sale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES, SimulateConfig
from pipeline.days import EPOCH
from pipeline.simulate import coefficients
from pipeline.simulate.items import Items
from pipeline.simulate.streams import Stream, generator

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tastes:
    """What each value of each field adds to the logit of a click, by category."""

    category: Floats
    """(C,)"""
    profile: dict[str, Floats]
    """By profile field, (values, C)."""
    price: dict[str, Floats]
    """By profile field, (values,): added to the price effect."""
    context: dict[str, Floats]
    """By context field, (values, C); ``warmth`` has one row."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """What holds for some days."""

    tastes: Tastes
    category_popularity: Floats
    """(C,), popularity of the items on sale, summed by category."""


def conditions_by_day(config: SimulateConfig, items: Items, end_us: int) -> tuple[int, tuple[Conditions, ...]]:
    """When the first conditions end, microseconds since 1970, and the conditions: those until then, then those of each day."""
    before = Conditions(draw_tastes(config.seed), items.category_popularity)
    drift = config.drift
    if drift is None:
        return end_us, (before,)
    from_us = (drift.from_day - EPOCH).days * coefficients.DAY_US
    each_day = []
    for day, midnight in enumerate(range(from_us, end_us, coefficients.DAY_US)):
        tastes = (
            before.tastes if drift.taste_turn_days is None else _turned(config.seed, before.tastes, day / drift.taste_turn_days)
        )
        on_sale = before.category_popularity if drift.new_items_per_day is None else items.category_popularity_at(midnight)
        each_day.append(Conditions(tastes, on_sale))
    return from_us, (before, *each_day)


def draw_tastes(seed: int, turn: int = 0) -> Tastes:
    """Tastes from a world's seed.

    Args:
        seed: of the world.
        turn: 0 for the tastes that a world begins with; another number for those that they have become after so many turns.
    """
    rng = generator(seed, Stream.TASTES, turn)
    context_values = {
        "warmth": 1,
        "hours": 24 // coefficients.HOURS_PER_BLOCK,
        "weekday": 7,
        "device": len(coefficients.DEVICES),
        "city": len(coefficients.CITIES),
        "weather": len(coefficients.WEATHER),
        "page": len(coefficients.PAGES),
    }
    return Tastes(
        category=rng.normal(0, coefficients.CATEGORY_SIGMA, CATEGORIES),
        profile={
            field: rng.normal(0, sigma, (len(coefficients.PROFILE[field]), CATEGORIES))
            for field, sigma in coefficients.PROFILE_SIGMA.items()
        },
        price={
            field: rng.normal(0, sigma, len(coefficients.PROFILE[field])) for field, sigma in coefficients.PRICE_SIGMA.items()
        },
        context={
            field: rng.normal(0, sigma, (context_values[field], CATEGORIES))
            for field, sigma in coefficients.CONTEXT_SIGMA.items()
        },
    )


def _turned(seed: int, first: Tastes, turns: float) -> Tastes:
    """Tastes after some turns: a quarter of a circle from one draw to the next, so that their deviation stays the same."""
    done = int(turns)
    cos, sin = (f(math.pi / 2 * (turns - done)) for f in (math.cos, math.sin))
    old, new = (draw_tastes(seed, turn) if turn else first for turn in (done, done + 1))

    def turned(before: dict[str, Floats], after: dict[str, Floats]) -> dict[str, Floats]:
        return {field: cos * before[field] + sin * after[field] for field in before}

    return Tastes(
        category=cos * old.category + sin * new.category,
        profile=turned(old.profile, new.profile),
        price=turned(old.price, new.price),
        context=turned(old.context, new.context),
    )
