"""Random numbers by purpose and chunk, so that drawing more of one thing never changes another."""

from __future__ import annotations

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What random numbers are for; the numbers are part of what a seed means."""

    ITEMS = 1
    TASTES = 2
    WEATHER = 3
    ACTIVITY = 4
    PEOPLE = 5
    SESSIONS = 6
    EXPOSURE = 7
    CLICKS = 8
    DIRT = 9
    NEW_ITEMS = 10


def generator(seed: int, stream: Stream, chunk: int = 0) -> np.random.Generator:
    """The generator of a purpose in a chunk of users."""
    return np.random.default_rng(np.random.SeedSequence([seed, int(stream), chunk]))
