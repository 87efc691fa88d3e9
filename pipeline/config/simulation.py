"""What a simulated world is asked for: how many impressions, which days, which seed."""

from __future__ import annotations

import datetime as dt
import math
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

CATEGORIES: Final = 24
"""How many categories the items of every world have."""


class SimulateConfig(BaseModel):
    """The size of a world; ``impressions`` alone is enough, the rest follows from it.

    Two configurations that differ in ``output`` alone give the same logs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str = Field(min_length=1)
    """Folder that the logs are written to; a path or a URL that both Spark and fsspec know."""
    impressions: int = Field(ge=1_000, le=1_000_000_000)
    """Number of distinct impressions, met exactly (the log holds about 0.5 % more rows: duplicates)."""
    first_day: dt.date
    """First UTC day of impressions."""
    last_day: dt.date
    """Last UTC day of impressions, included; clicks go on for one day more."""
    seed: int = Field(default=0, ge=0)
    """The same seed and sizes give the same rows, whatever the number of Spark partitions."""
    users: int | None = Field(default=None, ge=10)
    """Number of users; by default impressions / 120, at least 50."""
    items: int | None = Field(default=None, ge=CATEGORIES)
    """Number of items ever released; by default 4 * sqrt(impressions), at least 200."""
    brands: int | None = Field(default=None, ge=CATEGORIES)
    """Number of brands; by default items / 20, at least three a category."""

    @model_validator(mode="after")
    def _days_in_order(self) -> SimulateConfig:
        if self.last_day < self.first_day:
            raise ValueError(f"last_day {self.last_day} is before first_day {self.first_day}")
        return self

    @property
    def days(self) -> int:
        """Number of days with impressions."""
        return (self.last_day - self.first_day).days + 1

    @property
    def user_count(self) -> int:
        """How many users the world has: ``users``, or its default."""
        return self.users if self.users is not None else max(50, round(self.impressions / 120))

    @property
    def item_count(self) -> int:
        """How many items are ever released: ``items``, or its default."""
        return self.items if self.items is not None else max(200, round(4 * math.sqrt(self.impressions)))

    @property
    def brand_count(self) -> int:
        """How many brands there are: ``brands``, or its default."""
        return self.brands if self.brands is not None else max(3 * CATEGORIES, round(self.item_count / 20))
