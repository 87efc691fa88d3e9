"""Chance that depends on a row alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column
from pyspark.sql import functions as F

from pipeline.days import Calendar


def impression_hash(calendar: Calendar, seed: int) -> Column:
    """A hash of an impression: ids may begin anew with each user and each day, so those are part of it."""
    return F.xxhash64("user_id", "impression_id", F.expr(calendar.number_sql("time")), F.lit(seed))


def uniform(hashes: npt.NDArray[np.uint64], draw: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) from hashes and the number of the draw: SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = hashes + np.uint64(draw + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
