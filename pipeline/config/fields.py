"""The fields of a sample, their vocabularies and transforms, and the history."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.sources import LONGEST_DAYS, LONGEST_HOURS, Strict


class FieldConfig(Strict):
    """One field of a group."""

    kind: Literal["categorical", "numeric", "time_gap"] = "categorical"
    """``time_gap``, for behaviors: the seconds from the behavior to the impression, an id for each power of two."""
    expression: str | None = None
    """Spark SQL over the joined columns; the column of the field's name where it is not given."""
    vocabulary: str | None = None
    """Fields that name one vocabulary share ids and embeddings; the field's name where it is not given."""
    transform: Literal["log", "identity", "quantiles"] | None = None
    """Of a numeric field: standardized (``identity``), after a logarithm (``log``), or an id for each of ``buckets`` about equally
    full buckets (``quantiles``); identity where it is not given. All are fitted on training days."""
    buckets: int | None = Field(None, ge=2)
    """10 where it is not given."""

    @model_validator(mode="after")
    def _kinds(self) -> FieldConfig:
        if self.kind != "categorical" and self.vocabulary is not None:
            raise ValueError(f"a {self.kind} field has no vocabulary to share")
        if self.kind != "numeric" and self.transform is not None:
            raise ValueError(f"a {self.kind} field has no transform")
        if self.transform != "quantiles" and self.buckets is not None:
            raise ValueError("buckets are of `transform: quantiles`")
        if self.kind == "time_gap" and self.expression is not None:
            raise ValueError("a time_gap field has no expression: it is the time from the behavior to the impression")
        return self


class Fields(Strict):
    """The four groups of Zhang et al. 2021, section 3.1; the order of fields is the order in the model."""

    candidate: dict[str, FieldConfig] = Field(min_length=1)
    behaviors: dict[str, FieldConfig] = Field({})
    user: dict[str, FieldConfig] = Field({})
    context: dict[str, FieldConfig] = Field({})

    @model_validator(mode="after")
    def _gaps(self) -> Fields:
        for group in ("candidate", "user", "context"):
            for name, field in getattr(self, group).items():
                if field.kind == "time_gap":
                    raise ValueError(f"{group}.{name}: only behaviors have a time_gap")
        return self


#: Ids are int32, and the first two are padding and unknown.
MOST_IDS = 2**31 - 1


class VocabularyConfig(Strict):
    """Which values get an id of their own: the frequent ones, those of a list, or (by hash, shared with others) all."""

    min_count: int = Field(2, ge=1)
    """Rarer values in the training days are unknown (id 1), which gives that id something to learn from."""
    max_size: int | None = Field(None, ge=3, le=MOST_IDS)
    """Of more values the most frequent are kept; padding and unknown count."""
    values: list[str] | None = Field(None, min_length=1)
    """These and no others, in this order."""
    hash_buckets: int | None = Field(None, ge=1, le=MOST_IDS - 2)
    """No vocabulary: a value's id is drawn by its hash from so many, and the next values of the log need no new build."""

    @model_validator(mode="after")
    def _one_way(self) -> VocabularyConfig:
        counted = bool(self.model_fields_set & {"min_count", "max_size"})
        if counted + (self.values is not None) + (self.hash_buckets is not None) > 1:
            raise ValueError("a vocabulary is counted (min_count, max_size), listed (values) or hashed (hash_buckets)")
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise ValueError("values names a value twice")
        return self


class HistoryConfig(Strict):
    """The behaviors before an impression (section 4.1.2: the clicks of the previous 29 days, at most 30).

    A history is known up to its cutoff, and reaches ``days`` back from there. A behavior counts if it happened and arrived before
    the cutoff.
    """

    length: int = Field(30, ge=1)
    """How many behaviors a history holds at most: the most recent ones."""
    days: int = Field(29, ge=1, le=LONGEST_DAYS)
    """How far before the cutoff a behavior may lie, in days of 24 hours."""
    cutoff: Literal["impression", "previous_day"] = "impression"
    """Up to the impression, or up to the end of the day before, in ``day_time_zone``: what a nightly batch would have known."""
    lag_hours: float = Field(0.0, ge=0, le=LONGEST_HOURS)
    """The cutoff is so much earlier: how long it takes until what happened is there to be served."""

    @property
    def reach(self) -> dt.timedelta:
        """How far before midnight of an impression's day the oldest behavior can lie."""
        return dt.timedelta(days=self.days) + self.lag

    @property
    def lag(self) -> dt.timedelta:
        """How much earlier the cutoff is."""
        return dt.timedelta(hours=self.lag_hours)
