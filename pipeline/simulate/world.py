"""What all users of a world share, derived from the configuration alone: tastes, items, weather, who is how active."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.config.simulation import SimulateConfig
from pipeline.days import EPOCH
from pipeline.simulate import coefficients
from pipeline.simulate.drift import Conditions, Tastes, conditions_by_day
from pipeline.simulate.items import Items, draw_items
from pipeline.simulate.streams import Stream, generator

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_YEAR_DAYS = 365.25


@dataclass(frozen=True, eq=False)
class World:
    """All that is the same for every user; a few megabytes, built in well under a second."""

    config: SimulateConfig
    start_us: int
    """Midnight UTC of the first day, microseconds since 1970."""
    end_us: int
    """Midnight UTC after the last day."""
    items: Items
    conditions: tuple[Conditions, ...]
    """Those until the drift, then those of each of its days; one for all days where the world does not drift."""
    drift_us: int
    """Midnight UTC of the drift's first day; ``end_us`` where the world does not drift."""
    warmth: Floats
    """(cities, days), in [-1, 1]: high summer is 1."""
    weather: Ints
    """(cities, days), index into ``coefficients.WEATHER``."""
    user_impressions: Ints
    """(users,); sums to ``config.impressions``."""
    first_impression: Ints
    """(users,), the number of the user's first impression in the world."""

    @property
    def tastes(self) -> Tastes:
        """The tastes before any drift."""
        return self.conditions[0].tastes

    def drifted(self, time_us: Ints) -> Iterator[tuple[Ints, Conditions]]:
        """Which of some moments (S,) lie in each day of the drift, and its conditions; none of them where the world does not drift."""
        if len(self.conditions) == 1:
            return
        number = (time_us - self.drift_us) // coefficients.DAY_US + 1
        for day in np.unique(number[number > 0]):
            yield np.flatnonzero(number == day), self.conditions[day]

    @property
    def chunks(self) -> int:
        """Number of chunks of users."""
        return -(-self.config.user_count // coefficients.USERS_PER_CHUNK)

    def users_of(self, chunk: int) -> range:
        """Numbers of the users of a chunk."""
        first = chunk * coefficients.USERS_PER_CHUNK
        return range(first, min(first + coefficients.USERS_PER_CHUNK, self.config.user_count))


@lru_cache(maxsize=2)
def world_of(config: SimulateConfig) -> World:
    """The world of a configuration; a Spark worker builds it once."""
    start_us = (config.first_day - EPOCH).days * coefficients.DAY_US
    end_us = start_us + config.days * coefficients.DAY_US
    warmth = _warmth(config)
    impressions = _user_impressions(config)
    items = draw_items(config, start_us, end_us)
    drift_us, conditions = conditions_by_day(config, items, end_us)
    return World(
        config=config,
        start_us=start_us,
        end_us=end_us,
        items=items,
        conditions=conditions,
        drift_us=drift_us,
        warmth=warmth,
        weather=_weather(config.seed, warmth),
        user_impressions=impressions,
        first_impression=np.cumsum(impressions) - impressions,
    )


def _warmth(config: SimulateConfig) -> Floats:
    day_of_year = np.array(
        [(config.first_day + dt.timedelta(days=d)).timetuple().tm_yday for d in range(config.days)], dtype=np.float64
    )
    north = np.cos(2 * np.pi * (day_of_year - coefficients.WARMEST_DAY) / _YEAR_DAYS)
    hemisphere = np.array([1.0 if city in coefficients.CITIES_NORTH else -1.0 for city in coefficients.CITIES])
    return np.outer(hemisphere, north)


def _weather(seed: int, warmth: Floats) -> Ints:
    base, slope = np.array(list(coefficients.WEATHER.values())).T
    weights = np.maximum(0.0, base + slope * warmth[..., None])  # (cities, days, weathers)
    cumulative = np.cumsum(weights, axis=-1)
    drawn = generator(seed, Stream.WEATHER).random((*warmth.shape, 1)) * cumulative[..., -1:]
    weather: Ints = (drawn >= cumulative).sum(axis=-1)
    return weather


def _user_impressions(config: SimulateConfig) -> Ints:
    """Impressions of each user: lognormal shares, the three heaviest raised to their planted share."""
    rng = generator(config.seed, Stream.ACTIVITY)
    shares = rng.lognormal(0.0, coefficients.ACTIVITY_SIGMA, config.user_count)
    shares /= shares.sum()
    heaviest = np.argsort(-shares, kind="stable")[: len(coefficients.HEAVIEST_SHARES)]
    raised = np.maximum(shares[heaviest], coefficients.HEAVIEST_SHARES)
    shares[heaviest] = 0.0
    shares *= (1.0 - raised.sum()) / shares.sum()
    shares[heaviest] = raised
    return rng.multinomial(config.impressions, shares).astype(np.int64)
