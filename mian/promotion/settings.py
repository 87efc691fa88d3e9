"""The settings of a promotion: what is compared on which days, and the limits of the gates."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mian.config import Strict
from mian.scoring.stand_ins import Position


def _name(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_-]+", text) or re.fullmatch("v[0-9]+|latest", text, re.IGNORECASE):
        raise ValueError("MLflow takes names of letters, digits, '_' and '-', but for 'latest' and those of a 'v' and digits")
    return text


Name = Annotated[str, AfterValidator(_name)]


class DaysConfig(Strict):
    """Which days of the samples the models are compared on: the newest final ones after all days that either model has seen."""

    most: int = Field(7, ge=1)
    """At most so many days."""
    fewest: int = Field(1, ge=1)
    """With fewer days nothing is promoted."""
    rows: int = Field(5_000, ge=2)
    """With fewer samples on these days nothing is promoted."""
    positives: int = Field(100, ge=1)
    """With fewer clicks on these days nothing is promoted."""

    @model_validator(mode="after")
    def _fewest_can_be_had(self) -> DaysConfig:
        if self.fewest > self.most:
            raise ValueError(f"fewest: {self.fewest} is more than most, {self.most}, so that no version could ever be promoted")
        return self


class ComparisonConfig(Strict):
    """Candidate against champion on the same rows: not worse by more than a margin."""

    logloss_margin: float = Field(0.002, gt=0)
    """The candidate passes where the upper bound of its logloss minus the champion's is below this."""
    auc_margin: float = Field(0.004, gt=0)
    """The candidate passes where the upper bound of the champion's AUC minus its own is below this."""
    confidence: float = Field(0.975, gt=0.5, lt=1)
    """Of the one-sided bounds, over users: a candidate that is worse by just the margin passes with one minus this chance. The same for the
    bound of its logloss beside that of a constant click rate."""
    position: Position = "logged"
    """``serving``: fields that are known only after ranking are what each model reads where a request leaves them out."""


class CalibrationConfig(Strict):
    """Mean prediction over click rate of the candidate."""

    lowest: float = Field(0.9, gt=0, lt=1)
    """The interval must not reach below this."""
    highest: float = Field(1.1, gt=1)
    """The interval must not reach above this."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the interval, over users."""


class SlicesConfig(Strict):
    """Parts of the rows in which the candidate must not be significantly worse by more than a tolerance."""

    tolerance: float = Field(0.002, ge=0)
    """A slice may be worse in logloss by this: two trainings that differ in nothing but their seed differ in each slice, too."""
    level: float = Field(0.05, gt=0, lt=0.5)
    """Chance that any slice of a candidate fails that is worse by no more than the tolerance in each (Holm over all slices)."""
    rows: int = Field(500, ge=2)
    """Of a slice with fewer rows nothing is told: "cannot tell"."""
    positives: int = Field(20, ge=1)
    """Of a slice with fewer clicks nothing is told."""
    short_history: int = Field(5, ge=1)
    """A history of fewer behaviors is short."""
    item_field: str = "item_id"
    """The field of the candidate that is the item: where a model does not know its value, the item is unknown."""
    fields: tuple[str, ...] = ()
    """Columns of the samples, such as ``context_device``; each of their values is a slice."""
    values_per_field: int = Field(20, ge=1)
    """Of each field the most frequent values are slices; all others together are one."""


class LatencyConfig(Strict):
    """Time of one user and some candidates, candidate against champion in turns, in one process."""

    highest_ratio: float = Field(1.5, gt=1)
    """The candidate may take so many times as long."""
    candidates: int = Field(200, ge=1)
    rounds: int = Field(60, ge=5)
    """Each round times both models once; the ratio is of medians."""


class PromotionConfig(Strict):
    """The settings of a promotion: where the evidence comes from, and the limits of the gates."""

    samples: str
    """The folder that ``build_samples`` wrote, with the days to compare on; a local path or any URL that fsspec opens."""
    alias: Name = "champion"
    """The alias of the version that serves."""
    audit: Literal["required", "ignored"] = "required"
    """``required``: an audit found nothing on the days that the candidate was trained on and on those that it is compared on."""
    days: DaysConfig = DaysConfig()
    comparison: ComparisonConfig = ComparisonConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    slices: SlicesConfig = SlicesConfig()
    latency: LatencyConfig | None = LatencyConfig()
    """null: time is not measured."""
    highest_size_ratio: float | None = Field(2.0, gt=1)
    """The candidate's files may take so many times the bytes of the champion's. null: any size."""
    threads: int = Field(1, ge=1, le=1024)
    """Threads of PyTorch, for scoring and for the time of a request."""
