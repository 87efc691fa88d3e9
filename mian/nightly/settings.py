"""The settings of nights."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field, model_validator

from mian.config import Strict


class NightlyConfig(Strict):
    """The settings of nights: the configurations of the steps, and which days each step gets.

    The night of day D builds samples up to D less ``label_delay_days``, the last day whose labels are final. Of these the last
    ``test_days`` are compared on, the ``validation_days`` before them choose and calibrate, and all before these are training days.
    """

    data: str
    """Configuration of ``build_samples``, such as ``conf/data/demo.yaml``; its splits are moved by the night."""
    train: str
    """Configuration of ``train``, such as ``conf/train/mian.yaml``."""
    promotion: str
    """Configuration of ``promote``, such as ``conf/promotion.yaml``."""
    output: str
    """Local folder for what nights keep: a folder a night, with plan, marks, logs of the steps and reports."""
    first_day: dt.date
    """The first training day."""
    label_delay_days: int = Field(1, ge=0)
    """So many days after a day its labels are final: 1 for an attribution window of up to 24 hours."""
    test_days: int = Field(1, ge=1)
    validation_days: int = Field(1, ge=1)
    begin_with: Literal["champion", "nothing"] = "champion"
    """``champion``: weights of the version that serves, on the days since its own training days. ``nothing``, or where nobody serves: a new
    training on ``window_days``."""
    window_days: int | None = Field(None, ge=1)
    """Training days of a new training; null: all."""
    warm_overrides: dict[str, str] = Field({"epochs": "1"})
    """Settings of a training that begins with the champion, in the place of those of ``train``."""
    processes: int = Field(2, ge=1)
    """Ranks of a training on this machine."""
    spark_submit: tuple[str, ...] = ("spark-submit",)
    """The command that starts Spark's jobs, with its options."""

    @model_validator(mode="after")
    def _window_holds_a_day(self) -> NightlyConfig:
        if not self.spark_submit:
            raise ValueError("spark_submit: a command is needed, such as [spark-submit]")
        return self
