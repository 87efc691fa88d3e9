"""How far from its own day a sample's events can lie."""

from __future__ import annotations

import datetime as dt

from pipeline.config import DataConfig
from pipeline.days import ONE_DAY


def reach_back(config: DataConfig) -> dt.timedelta:
    """How many whole days before an impression's day the events lie that its sample can depend on."""
    no_join = config.recorded is not None and config.log.negatives is None
    reach = dt.timedelta(0) if no_join else whole_days(config.history.reach)
    if config.log.negatives is not None:
        reach = max(reach, whole_days(config.log.negatives.window))
    return reach + config.calendar.slack


def impressions_ahead(config: DataConfig) -> dt.timedelta:
    """How far after a day the impressions lie that its labels can depend on."""
    log = config.log
    return log.attribution + config.calendar.slack if log.clicks is not None else dt.timedelta(0)


def impressions_back(config: DataConfig) -> dt.timedelta:
    """How many whole days before a day impressions are read that its clicks may belong to; a day at most, for it is for counting."""
    return min(whole_days(config.log.attribution), ONE_DAY) if config.log.clicks is not None else dt.timedelta(0)


def whole_days(span: dt.timedelta) -> dt.timedelta:
    """A span of time, rounded up to whole days."""
    return -(-span // ONE_DAY) * ONE_DAY
