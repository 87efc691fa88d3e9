"""The users of a chunk: profiles that change, absences, needs that come and go; and the snapshots that a log has of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES
from pipeline.simulate import coefficients
from pipeline.simulate.streams import Stream, generator
from pipeline.simulate.world import World

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = np.iinfo(np.int64).max

USERS_SCHEMA = pa.schema(
    [("day", pa.date32()), ("user_id", pa.string()), *((field, pa.string()) for field in coefficients.PROFILE)]
)


@dataclass(frozen=True, eq=False)
class Users:
    """U users; all times are microseconds since 1970, UTC, and all profile values indices into ``coefficients.PROFILE``."""

    numbers: range
    first: dict[str, Ints]
    """By field, (U,): the value at the start."""
    later: dict[str, Ints]
    """By field, (U,): the value from ``change_us`` on."""
    change_us: dict[str, Ints]
    joined_us: Ints
    """(U,), a midnight."""
    listed_us: Ints
    """(U,), when the profile was filled in, or ``NEVER``."""
    main_device: Ints
    """(U,)"""
    quiet_from_us: Ints
    """(U,), a midnight; equals ``quiet_until_us`` for users who are never away."""
    quiet_until_us: Ints
    """(U,)"""
    demand_from_us: Ints
    """(U, D), ``NEVER`` where a user has fewer demands."""
    demand_until_us: Ints
    """(U, D)"""
    demand_category: Ints
    """(U, D)"""

    def value(self, field: str, user: Ints, time_us: Ints) -> Ints:
        """The values of a profile field of some users, each at a time."""
        return np.where(time_us >= self.change_us[field][user], self.later[field][user], self.first[field][user])

    def ids(self) -> pa.Array:
        """The ids in the logs, in order."""
        return pa.array([f"u{number:08d}" for number in self.numbers])


def draw_users(world: World, chunk: int) -> Users:
    """The users of a chunk, from the world's seed."""
    rng = generator(world.config.seed, Stream.PEOPLE, chunk)
    numbers = world.users_of(chunk)
    n = len(numbers)
    span = world.end_us - world.start_us

    first = {field: _choose(rng, shares, n) for field, shares in coefficients.PROFILE.items()}
    redrawn = {field: _choose(rng, shares, n) for field, shares in coefficients.PROFILE.items()}
    highest = len(coefficients.PROFILE["membership"]) - 1
    later = redrawn | {"membership": np.minimum(first["membership"] + 1, highest)}
    change_us = {
        field: world.start_us + (rng.exponential(coefficients.CHANGE_DAYS[field], n) * coefficients.DAY_US).astype(np.int64)
        if field in coefficients.CHANGE_DAYS
        else np.full(n, NEVER)
        for field in coefficients.PROFILE
    }

    joins = rng.random(n) < coefficients.JOIN_SHARE
    joining: Floats = world.start_us + 0.9 * span * rng.random(n)
    joined_us = np.where(joins, _midnight(joining), world.start_us)
    late = rng.random(n) < coefficients.LATE_PROFILE_SHARE
    listed_us = np.where(late, joined_us + (rng.random(n) * (world.end_us - joined_us)).astype(np.int64), joined_us)
    listed_us[rng.random(n) < coefficients.NO_PROFILE_SHARE] = NEVER

    own: Floats = (world.end_us - joined_us).astype(np.float64)
    quiet = rng.random(n) < coefficients.QUIET_SHARE
    quiet_from = _midnight(joined_us.astype(np.float64) + rng.uniform(*coefficients.QUIET_START, n) * own)
    length = np.minimum(rng.uniform(*coefficients.QUIET_LENGTH, n) * own, coefficients.QUIET_LONGEST_DAYS * coefficients.DAY_US)
    quiet_until = np.where(quiet, _midnight(quiet_from.astype(np.float64) + length), quiet_from)

    demands = rng.poisson(span / coefficients.DAY_US / coefficients.DEMAND_EVERY_DAYS, n)
    shape = (n, max(1, int(demands.max())))
    demand_from = world.start_us + (rng.random(shape) * span).astype(np.int64)
    demand_until = demand_from + (rng.uniform(*coefficients.DEMAND_DAYS, shape) * coefficients.DAY_US).astype(np.int64)
    demand_from[np.arange(shape[1]) >= demands[:, None]] = NEVER
    return Users(
        numbers=numbers,
        first=first,
        later=later,
        change_us=change_us,
        joined_us=joined_us,
        listed_us=listed_us,
        main_device=_choose(rng, coefficients.DEVICES, n),
        quiet_from_us=quiet_from,
        quiet_until_us=quiet_until,
        demand_from_us=demand_from,
        demand_until_us=demand_until,
        demand_category=rng.integers(0, CATEGORIES, shape),
    )


def snapshots(world: World, users: Users) -> Iterator[pa.RecordBatch]:
    """The weekly ``users`` snapshots of a chunk: the profiles filled in by 00:00 UTC of the day, as they are then."""
    ids = users.ids()
    for midnight in range(world.start_us, world.end_us, coefficients.SNAPSHOT_DAYS * coefficients.DAY_US):
        listed = np.flatnonzero(users.listed_us <= midnight)
        columns = [
            pa.array(np.full(len(listed), midnight // coefficients.DAY_US, np.int32)).cast(pa.date32()),
            ids.take(pa.array(listed)),
        ]
        for field, values in coefficients.PROFILE.items():
            columns.append(pa.array(list(values)).take(pa.array(users.value(field, listed, np.full(len(listed), midnight)))))
        yield pa.RecordBatch.from_arrays(columns, schema=USERS_SCHEMA)


def _choose(rng: np.random.Generator, shares: dict[str, float], n: int) -> Ints:
    weights = np.array(list(shares.values()))
    return rng.choice(len(weights), n, p=weights / weights.sum())


def _midnight(time_us: Floats) -> Ints:
    return (time_us // coefficients.DAY_US).astype(np.int64) * coefficients.DAY_US
