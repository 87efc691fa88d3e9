"""The items of a world, in the order of their release, and drawing among those on sale by their popularity."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.simulation import CATEGORIES, SimulateConfig
from pipeline.days import EPOCH
from pipeline.simulate import coefficients
from pipeline.simulate.streams import Stream, generator

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Items:
    """Item ``i`` is the i-th to be released; on sale at a time are the last ``catalog_size`` of those that were released by then."""

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
    catalog_size: int
    """How many items are on sale at most; all of them where nothing goes off sale."""
    category_popularity: Floats
    """(C,), summed over all items that the world releases without drift."""

    def __len__(self) -> int:
        return len(self.released_us)

    def draw(self, time_us: Ints, chance: Floats) -> Ints:
        """Items by popularity among those on sale at the time.

        Args:
            time_us: any shape.
            chance: same shape, uniform in [0, 1).
        """
        out = np.searchsorted(self.released_us, time_us, side="right")
        first = np.maximum(out - self.catalog_size, 0)
        low = np.where(first > 0, self.cumulative[first - 1], 0.0)
        found = np.searchsorted(self.cumulative, low + chance * (self.cumulative[out - 1] - low), side="right")
        item: Ints = np.clip(found, first, out - 1)
        return item

    def draw_in(self, category: Ints, time_us: Ints, chance: Floats) -> Ints:
        """The same among the items of a category; its newest item stays on sale until there is another."""
        start = self.shelf_start[category]
        stop = np.searchsorted(self.shelf_key, category * self.span_us + (time_us - self.released_us[0]), side="right")
        if self.catalog_size < len(self):
            first = np.maximum(np.searchsorted(self.released_us, time_us, side="right") - self.catalog_size, 0)
            oldest = category * self.span_us + (self.released_us[first] - self.released_us[0])
            start = np.minimum(np.searchsorted(self.shelf_key, oldest, side="left"), stop - 1)
        low, high = self.shelf_cumulative[start], self.shelf_cumulative[stop]
        found = np.searchsorted(self.shelf_cumulative, low + chance * (high - low), side="right") - 1
        item: Ints = self.shelf[np.clip(found, start, stop - 1)]
        return item

    def category_popularity_at(self, time_us: int) -> Floats:
        """By category, (C,), the popularity of the items on sale at a time."""
        out = int(np.searchsorted(self.released_us, time_us, side="right"))
        on_sale = slice(max(out - self.catalog_size, 0), out)
        return _by_category(self.category[on_sale], np.diff(self.cumulative, prepend=0.0)[on_sale])

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


@dataclass(frozen=True, eq=False)
class _Drawn:
    """N items in any order."""

    released_us: Ints
    category: Ints
    brand: Ints
    price_z: Floats
    popularity: Floats
    quality: Floats

    def where(self, chosen: NDArray[np.bool_] | Ints) -> _Drawn:
        return _Drawn(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def and_also(self, others: _Drawn) -> _Drawn:
        return _Drawn(
            **{field.name: np.concatenate([getattr(self, field.name), getattr(others, field.name)]) for field in fields(self)}
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
    category = _categories(rng, count)
    category[:CATEGORIES] = np.arange(CATEGORIES)
    brand, price_z = _brands(rng, config, category), rng.normal(size=count)
    price_mean = rng.normal(*coefficients.PRICE_LOG_MEAN, CATEGORIES)
    popularity = 1.0 / (rng.permutation(count) + coefficients.POPULARITY_SHIFT)
    drawn = _Drawn(released, category, brand, price_z, popularity, rng.normal(0, coefficients.QUALITY_SIGMA, count))
    drawn = drawn.where(np.argsort(released, kind="stable"))

    category_popularity = _by_category(drawn.category, np.diff(np.cumsum(drawn.popularity), prepend=0.0))
    catalog_size = count
    if config.drift is not None and config.drift.new_items_per_day is not None:
        from_us = (config.drift.from_day - EPOCH).days * coefficients.DAY_US
        drawn = drawn.where(drawn.released_us < from_us)
        catalog_size = len(drawn.released_us)
        drawn = drawn.and_also(_new_items(config, catalog_size * config.drift.new_items_per_day, from_us, end_us))
        drawn = drawn.where(np.argsort(drawn.released_us, kind="stable"))
    return _shelved(drawn, price_mean, end_us, catalog_size, category_popularity)


def _new_items(config: SimulateConfig, per_day: float, from_us: int, end_us: int) -> _Drawn:
    """The items that a drift releases; ``per_day`` on each day, a fraction carried on to the next."""
    rng = generator(config.seed, Stream.NEW_ITEMS)
    days = (end_us - from_us) // coefficients.DAY_US
    by_day = np.diff(np.floor(per_day * np.arange(days + 1) + 1e-9).astype(np.int64))
    midnight = np.repeat(from_us + np.arange(days) * coefficients.DAY_US, by_day)
    count = len(midnight)
    category = _categories(rng, count)
    return _Drawn(
        released_us=midnight + rng.integers(0, coefficients.DAY_US, count),
        category=category,
        brand=_brands(rng, config, category),
        price_z=rng.normal(size=count),
        popularity=1.0 / (rng.integers(0, config.item_count, count) + coefficients.POPULARITY_SHIFT),
        quality=rng.normal(0, coefficients.QUALITY_SIGMA, count),
    )


def _by_category(category: Ints, popularity: Floats) -> Floats:
    return np.bincount(category, weights=popularity, minlength=CATEGORIES).astype(np.float64)


def _categories(rng: np.random.Generator, count: int) -> Ints:
    share = 1.0 / (np.arange(CATEGORIES) + coefficients.CATEGORY_SHIFT)
    return rng.choice(CATEGORIES, count, p=share / share.sum())


def _brands(rng: np.random.Generator, config: SimulateConfig, category: Ints) -> Ints:
    count = len(category)
    own = rng.integers(0, config.brand_count // CATEGORIES, count) * CATEGORIES + category
    return np.where(rng.random(count) < coefficients.HOME_BRAND_SHARE, own, rng.integers(0, config.brand_count, count))


def _shelved(drawn: _Drawn, price_mean: Floats, end_us: int, catalog_size: int, category_popularity: Floats) -> Items:
    """Items with what drawing among them needs.

    Args:
        drawn: in the order of their release.
        price_mean: (C,), the mean log price of each category.
        end_us: the end of the period.
        catalog_size: how many items are on sale at most.
        category_popularity: (C,)
    """
    released, category, popularity = drawn.released_us, drawn.category, drawn.popularity
    shelf = np.lexsort((released, category))
    span = 2 * (end_us - int(released[0]))
    return Items(
        released_us=released,
        category=category,
        brand=drawn.brand,
        price=np.exp(price_mean[category] + coefficients.PRICE_LOG_SIGMA * drawn.price_z),
        price_z=drawn.price_z,
        quality=drawn.quality,
        cumulative=np.cumsum(popularity),
        shelf=shelf,
        shelf_key=category[shelf] * span + (released[shelf] - released[0]),
        shelf_cumulative=np.concatenate([[0.0], np.cumsum(popularity[shelf])]),
        shelf_start=np.searchsorted(category[shelf], np.arange(CATEGORIES)),
        span_us=span,
        catalog_size=catalog_size,
        category_popularity=category_popularity,
    )
