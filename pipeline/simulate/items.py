"""The items of a world, in the order of their release, and drawing among those that are out by their popularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES, SimulateConfig
from pipeline.simulate import coefficients
from pipeline.simulate.streams import Stream, generator

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Items:
    """Item ``i`` is the i-th to be released, so the items that are out at a time are the first ones."""

    released_us: Ints
    """(I,), ascending, microseconds since 1970."""
    category: Ints
    """(I,), in [0, C)."""
    brand: Ints
    """(I,)"""
    price: Floats
    """(I,)"""
    price_z: Floats
    """(I,), log price standardized within the category."""
    quality: Floats
    """(I,), part of the logit."""
    cumulative: Floats
    """(I,), running sum of popularity."""
    shelf: Ints
    """(I,), items ordered by category, then release."""
    shelf_key: Ints
    """(I,), ascending: the category's number times ``span_us``, plus the release since the oldest."""
    shelf_cumulative: Floats
    """(I + 1,), running sum of popularity along the shelf, from 0."""
    shelf_start: Ints
    """(C,), where each category begins on the shelf."""
    span_us: int
    """Longer than any time between a release and an impression."""

    def __len__(self) -> int:
        return len(self.released_us)

    def draw(self, time_us: Ints, chance: Floats) -> Ints:
        """Items by popularity among those released at the time.

        Args:
            time_us: any shape.
            chance: same shape, uniform in [0, 1).
        """
        out = np.searchsorted(self.released_us, time_us, side="right")
        found = np.searchsorted(self.cumulative, chance * self.cumulative[out - 1], side="right")
        return np.minimum(found, out - 1)

    def draw_in(self, category: Ints, time_us: Ints, chance: Floats) -> Ints:
        """The same among the items of a category; each has items from before the period."""
        start = self.shelf_start[category]
        stop = np.searchsorted(self.shelf_key, category * self.span_us + (time_us - self.released_us[0]), side="right")
        low, high = self.shelf_cumulative[start], self.shelf_cumulative[stop]
        found = np.searchsorted(self.shelf_cumulative, low + chance * (high - low), side="right") - 1
        item: Ints = self.shelf[np.clip(found, start, stop - 1)]
        return item

    def ids(self) -> pa.Array:
        """The ids in the logs, by item number."""
        return pa.array([f"i{i:07d}" for i in range(len(self))])

    def table(self) -> pa.RecordBatch:
        """The rows of the ``items`` log, one per item."""
        return pa.RecordBatch.from_pydict(
            {
                "item_id": self.ids(),
                "category": [f"category_{c:02d}" for c in self.category],
                "brand": [f"brand_{b:04d}" for b in self.brand],
                "price": np.round(self.price, 2),
                "released_at": pa.array(self.released_us, pa.timestamp("us", tz="UTC")),
            }
        )


def draw_items(config: SimulateConfig, start_us: int, end_us: int) -> Items:
    """The items of a world, from its seed; the first C, one a category, are in the catalog before the period."""
    rng = generator(config.seed, Stream.ITEMS)
    count = config.item_count
    new = rng.random(count) < coefficients.NEW_ITEM_SHARE
    new[:CATEGORIES] = False
    released = np.where(
        new,
        rng.integers(start_us, end_us, count),
        start_us - rng.integers(1, int(coefficients.CATALOG_DAYS * coefficients.DAY_US), count),
    )
    share = 1.0 / (np.arange(CATEGORIES) + coefficients.CATEGORY_SHIFT)
    category = rng.choice(CATEGORIES, count, p=share / share.sum())
    category[:CATEGORIES] = np.arange(CATEGORIES)
    own = rng.integers(0, config.brand_count // CATEGORIES, count) * CATEGORIES + category
    brand = np.where(rng.random(count) < coefficients.HOME_BRAND_SHARE, own, rng.integers(0, config.brand_count, count))
    price_z = rng.normal(size=count)
    price_mean = rng.normal(*coefficients.PRICE_LOG_MEAN, CATEGORIES)[category]
    popularity = 1.0 / (rng.permutation(count) + coefficients.POPULARITY_SHIFT)
    quality = rng.normal(0, coefficients.QUALITY_SIGMA, count)

    order = np.argsort(released, kind="stable")
    released, category, popularity = released[order], category[order], popularity[order]
    shelf = np.lexsort((released, category))
    span = 2 * (end_us - int(released[0]))
    return Items(
        released_us=released,
        category=category,
        brand=brand[order],
        price=np.exp(price_mean + coefficients.PRICE_LOG_SIGMA * price_z)[order],
        price_z=price_z[order],
        quality=quality[order],
        cumulative=np.cumsum(popularity),
        shelf=shelf,
        shelf_key=category[shelf] * span + (released[shelf] - released[0]),
        shelf_cumulative=np.concatenate([[0.0], np.cumsum(popularity[shelf])]),
        shelf_start=np.searchsorted(category[shelf], np.arange(CATEGORIES)),
        span_us=span,
    )
