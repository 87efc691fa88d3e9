"""The settings of monitoring."""

from __future__ import annotations

from pydantic import Field

from mian.config import Strict
from mian.scoring.stand_ins import Position


class MonitoringConfig(Strict):
    """The settings of monitoring: where samples are, what their days are compared with, and how seldom a quiet day may raise an alarm."""

    samples: str
    """The folder that ``build_samples`` wrote, with the days to look at and their labels; a local path or any URL that fsspec opens."""
    reference_days: int = Field(7, ge=3)
    """The first so many final days after all days that the model has seen, its test days, are what later days are compared with.
    Limits follow from how much these differ among each other: with fewer days limits are wider."""
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5)
    """Chance that a day that is like the reference days raises an alarm, all of its measures together."""
    calendar_fields: tuple[str, ...] = ("weekday", "month")
    """Fields that a day decides. Their values are not compared with those of other days."""
    position: Position = "logged"
    """``serving``: fields that are known only after ranking are what the model reads where a request leaves them out. It decides nothing
    where published scores are read."""
    threads: int = Field(1, ge=1, le=1024)
    """Threads of PyTorch, for scoring."""
