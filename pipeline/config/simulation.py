"""What a simulated world is asked for: how many impressions, which days, which seed."""

from __future__ import annotations

import datetime as dt
import math
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

CATEGORIES: Final = 24
"""How many categories the items of every world have."""


class DriftConfig(BaseModel):
    """How a world changes from one day to the next; without it tastes stay, and few items are new."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_day: dt.date
    """First UTC day that differs. All rows before it are those of the world without drift."""
    new_items_per_day: float | None = Field(default=None, ge=0.0, le=1.0)
    """Items released each day, as a share of the items on sale at the beginning of ``from_day``. As many go off sale, those longest on
    sale first, so that the catalog keeps its size. By default items are released as without drift, and none goes off sale."""
    taste_turn_days: float | None = Field(default=None, ge=1.0)
    """Days in which all tastes turn into others that have nothing to do with them, and so on again and again. By default they stay."""

    @model_validator(mode="after")
    def _drifts(self) -> DriftConfig:
        if self.new_items_per_day is None and self.taste_turn_days is None:
            raise ValueError("drift has neither new_items_per_day nor taste_turn_days; set one of them, or leave drift out")
        return self


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
    """Number of items ever released without drift; by default 4 * sqrt(impressions), at least 200."""
    brands: int | None = Field(default=None, ge=CATEGORIES)
    """Number of brands; by default items / 20, at least three a category."""
    drift: DriftConfig | None = None
    """How tastes and items change from a day on; by default they do not."""

    @model_validator(mode="after")
    def _days_in_order(self) -> SimulateConfig:
        if self.last_day < self.first_day:
            raise ValueError(f"last_day {self.last_day} is before first_day {self.first_day}")
        if self.drift is not None and not self.first_day <= self.drift.from_day <= self.last_day:
            raise ValueError(
                f"drift.from_day {self.drift.from_day} is none of the days {self.first_day} to {self.last_day}; choose one of them"
            )
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
        """How many items are ever released without drift: ``items``, or its default."""
        return self.items if self.items is not None else max(200, round(4 * math.sqrt(self.impressions)))

    @property
    def brand_count(self) -> int:
        """How many brands there are: ``brands``, or its default."""
        return self.brands if self.brands is not None else max(3 * CATEGORIES, round(self.item_count / 20))
