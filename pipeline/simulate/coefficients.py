"""Every coefficient of the simulated world; docs/concepts/simulated-world.md tells what each one does.

The number of categories is :data:`pipeline.config.simulation.CATEGORIES`, because the sizes of a world depend on it.

They were chosen once, as a plausible shop, and are no setting: another value is another world.
"""

from __future__ import annotations

from typing import Final

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3_600 * SECOND_US
DAY_US: Final = 24 * HOUR_US

# ---- users -------------------------------------------------------------------------------------------------------------------
USERS_PER_CHUNK: Final = 500

CITIES_NORTH: Final = ("Lisbon", "London", "Madrid", "Paris", "Berlin", "Rome", "Vienna", "Warsaw")
CITIES_SOUTH: Final = ("Cape Town", "Johannesburg", "Durban", "Windhoek")
CITIES: Final = CITIES_NORTH + CITIES_SOUTH

#: Profile fields: the share of each value among users.
PROFILE: Final[dict[str, dict[str, float]]] = {
    "gender": {"female": 0.48, "male": 0.48, "other": 0.04},
    "age_group": {"18-24": 0.18, "25-34": 0.27, "35-44": 0.22, "45-54": 0.16, "55-64": 0.10, "65+": 0.07},
    "occupation": {
        "builder": 0.08,
        "cook": 0.06,
        "designer": 0.07,
        "driver": 0.08,
        "farmer": 0.05,
        "lawyer": 0.05,
        "nurse": 0.09,
        "programmer": 0.12,
        "retired": 0.09,
        "sales": 0.11,
        "student": 0.12,
        "teacher": 0.08,
    },
    "household": {"single": 0.35, "couple": 0.30, "family": 0.28, "shared": 0.07},
    "membership": {"free": 0.65, "plus": 0.25, "vip": 0.10},
    "home_city": {city: 0.09 if city in CITIES_NORTH else 0.07 for city in CITIES},
}
#: Mean number of days between changes of a field; a user changes each at most once, membership only upward.
CHANGE_DAYS: Final = {"home_city": 400.0, "occupation": 600.0, "household": 700.0, "membership": 250.0}
NO_PROFILE_SHARE: Final = 0.05  # users who never fill in a profile
LATE_PROFILE_SHARE: Final = 0.10  # users who fill it in at a random time of the period
JOIN_SHARE: Final = 0.15  # users who come to the shop during the period
SNAPSHOT_DAYS: Final = 7

ACTIVITY_SIGMA: Final = 1.1  # of the lognormal number of impressions a user
HEAVIEST_SHARES: Final = (0.01, 0.005, 0.0025)  # of all impressions; the heaviest users have at least these
QUIET_SHARE: Final = 0.20  # users with one long absence
QUIET_START: Final = (0.15, 0.45)  # it begins after this part of the user's time, drawn uniformly
QUIET_LENGTH: Final = (0.25, 0.50)  # and lasts this part of it, drawn uniformly ...
QUIET_LONGEST_DAYS: Final = 45.0  # ... but no longer than this

DEMAND_EVERY_DAYS: Final = 15.0  # mean time between a user's temporary demands
DEMAND_DAYS: Final = (3.0, 9.0)  # how long one lasts, drawn uniformly

# ---- items -------------------------------------------------------------------------------------------------------------------
CATEGORY_SHIFT: Final = 6.0  # share of category c (from 0) of the items is proportional to 1 / (c + shift)
HOME_BRAND_SHARE: Final = 0.8  # items whose brand is one of their category's own
NEW_ITEM_SHARE: Final = 0.25  # items released during the period
CATALOG_DAYS: Final = 730.0  # the others were released in these days before it
POPULARITY_SHIFT: Final = 10.0  # exposure of the item of popularity rank r (from 0) is proportional to 1 / (r + shift)
PRICE_LOG_MEAN: Final = (3.2, 0.7)  # mean and deviation, over categories, of the mean log price
PRICE_LOG_SIGMA: Final = 0.6  # of log prices within a category

# ---- sessions and context ----------------------------------------------------------------------------------------------------
SLATE: Final = 6  # items shown in one session, all at one instant
HOUR_WEIGHTS: Final = (2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 7, 8, 10, 12, 13, 12, 8, 4)
HOURS_PER_BLOCK: Final = 4  # tastes depend on the block of the day
DEVICES: Final = {"android": 0.45, "ios": 0.30, "desktop": 0.20, "tablet": 0.05}
MAIN_DEVICE_SHARE: Final = 0.85  # sessions on the user's main device; the others on any
PAGES: Final = {"home": 0.60, "deals": 0.20, "cart": 0.12, "wishlist": 0.08}
AT_HOME_SHARE: Final = 0.93  # sessions in the home city; the others in any
WARMEST_DAY: Final = 196.0  # day of the year, in the north
#: Weight of each weather in a city's day at warmth w in [-1, 1]: max(0, first + second * w).
WEATHER: Final = {
    "sunny": (0.40, 0.20),
    "cloudy": (0.30, 0.0),
    "rain": (0.25, 0.0),
    "snow": (0.0, -0.20),
    "storm": (0.05, 0.03),
}

# ---- what is shown -----------------------------------------------------------------------------------------------------------
PROFILE_SLOT_SHARE: Final = 0.25  # slots filled from a category that suits the profile
INTEREST_SLOT_SHARE: Final = 0.20  # slots filled from the category of one of the last clicks
INTEREST_SLOT_CLICKS: Final = 10  # how many last clicks that is
SPARE_SLOTS: Final = 3  # drawn in addition, to take the place of items that came up twice

# ---- the logit of a click ----------------------------------------------------------------------------------------------------
INTERCEPT: Final = -2.6
CATEGORY_SIGMA: Final = 0.30
QUALITY_SIGMA: Final = 0.40
#: Deviation of the taste of each value of a profile field for each category.
PROFILE_SIGMA: Final = {
    "gender": 0.28,
    "age_group": 0.28,
    "occupation": 0.36,
    "household": 0.25,
    "membership": 0.10,
    "home_city": 0.0,
}
#: Deviation of the taste of each value of a context field for each category; ``warmth`` is multiplied by w in [-1, 1].
CONTEXT_SIGMA: Final = {
    "warmth": 0.42,
    "hours": 0.20,
    "weekday": 0.15,
    "device": 0.15,
    "city": 0.15,
    "weather": 0.30,
    "page": 0.15,
}
PAGE_EFFECT: Final = {"home": 0.0, "deals": 0.20, "cart": -0.20, "wishlist": 0.35}
POSITION_EFFECT: Final = -0.40  # times ln(position)
PRICE_EFFECT: Final = -0.15  # times the item's price, standardized within its category, on the log scale
#: Deviation of what each value of a profile field adds to the price effect.
PRICE_SIGMA: Final = {"age_group": 0.15, "occupation": 0.20, "membership": 0.10}
DEMAND_EFFECT: Final = 1.6  # on items of a category that the user needs at the moment

MEMORY_CLICKS: Final = 30  # interest comes from so many last clicks ...
MEMORY_DAYS: Final = 29.0  # ... no older than this
RECENT_HALF_RANK: Final = 4.0  # the r-th last click (from 0) weighs 1 / (1 + r / this) ...
INTEREST_DECAY_DAYS: Final = 10.0  # ... times exp(-age / this)
CATEGORY_INTEREST: Final = 1.5  # times 1 - exp(-sum of the weights of clicks in the item's category)
BRAND_INTEREST: Final = 0.7  # the same for its brand

# ---- clicks and dirt ---------------------------------------------------------------------------------------------------------
ATTRIBUTION_HOURS: Final = 24.0  # a click later than this is no label
DELAY_MEDIAN_SECONDS: Final = 30.0  # lognormal
DELAY_SIGMA: Final = 1.2
DELAY_SECONDS: Final = (1.0, 12 * 3600.0)  # bounds of the delay of a click in time
LATE_CLICK_SHARE: Final = 0.01  # clicks after the attribution window, by an hour plus an exponential time
LATE_MEAN_HOURS: Final = 12.0
ORPHAN_SHARE: Final = 0.005  # clicks followed by one on an item whose impression no log has
ORPHAN_SECONDS: Final = (5.0, 600.0)  # so long after it
DUPLICATE_IMPRESSION_SHARE: Final = 0.005
DUPLICATE_CLICK_SHARE: Final = 0.005
