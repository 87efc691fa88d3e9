"""A data set: its logs, its fields, its splits, where its samples go."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mian.contract import History, Split
from pipeline.config.fields import FieldConfig, Fields, HistoryConfig, VocabularyConfig
from pipeline.config.log import Log
from pipeline.config.names import check_names
from pipeline.config.simulation import SimulateConfig
from pipeline.config.sources import AttributeSource, Lookup, Source, Strict
from pipeline.days import PLAUSIBLE_YEARS, Calendar


class Sampling(Strict):
    """Which impressions become samples, and which negatives are thinned."""

    negatives: float = Field(1.0, gt=0, le=1)
    """The share of impressions with label 0 that is kept, drawn by a hash of user, impression, day and
    ``seed``. The contract records it, and a
    model trained on such days is calibrated back."""
    splits: list[str] = Field(["train"])
    """The splits whose days are thinned; leave out those that metrics are taken on."""


class Quality(Strict):
    """What stops a build before anything of it is published."""

    max_quarantined: float = Field(0.01, ge=0, le=1)
    """Of the rows of one log on one day the share that may break a rule and go to the quarantine."""
    max_duplicates: float = Field(0.1, ge=0, le=1)
    """Of a day's impressions the share that may be duplicates of others; logs that deliver at least once have some."""
    max_undrawn: float = Field(0.2, ge=0, le=1)
    """Of a day's negatives that ``log.negatives`` asks for the share that may be missing because no item could be drawn."""
    max_unknown: dict[str, float] = Field({})
    """Column of the samples -> the share of unknown ids, or of missing numbers, that a day may have: ``candidate_item_id: 0.3``."""
    max_drift: dict[str, float] = Field({})
    """Column of the samples -> the population stability index against the training days that a day may have; over 0.25 is commonly
    called a shift."""
    min_matched: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({})
    """Source -> the least share of a day's rows that finds its partner: ``clicks`` an impression, impressions a row of ``items``,
    ``users`` or a lookup (``lookups.0``), ``behaviors`` a row of items. Of a source that is not named here (but for lookups) a build stops
    where not one row finds its partner: ids that are written in two ways."""
    max_early_clicks: float = Field(0.1, ge=0, le=1)
    """Of a day's clicks the share that may come before the impression of their id: clocks that differ."""
    clock_skew_seconds: float = Field(300.0, ge=0, le=86_400)
    """A row that arrived so much before it happened breaks a rule; a little less is taken for clocks that differ."""


class DataConfig(Strict):
    """A data set: its logs, its fields, its splits, where its samples go."""

    name: str = Field(min_length=1)
    """Name of the data set. The samples folder keeps it, and takes no other."""
    samples: str = Field(min_length=1)
    """The folder that ``build_samples`` fills."""
    log: Log
    users: AttributeSource | None = None
    """Columns ``user_id`` and any others."""
    items: AttributeSource | None = None
    """Columns ``item_id`` and any others."""
    lookups: list[Lookup] = Field([])
    fields: Fields
    vocabularies: dict[str, VocabularyConfig] = Field({})
    history: HistoryConfig = HistoryConfig()
    splits: dict[str, Split]
    day_time_zone: str = "UTC"
    """Whose days are meant wherever a day is named: of splits, ``day_column``, ``empty_days``, ``complete_to``, the ``previous_day``
    cutoff and the folders of samples. A name of the IANA database, such as ``Europe/Zurich``; daylight saving is followed."""
    sampling: Sampling = Sampling()
    quality: Quality = Quality()
    rows_per_file: int = Field(50_000, ge=1)
    """About how many samples a Parquet file holds, as one row group."""
    rows_per_pass: int = Field(20_000_000, ge=1)
    """Days are built and published together up to about so many impressions: what a stop in the middle can cost."""
    keep_generations: int = Field(2, ge=1)
    """So many generations of samples stay, the published one included: what ``--rollback`` can go back to."""
    examples_per_day: int = Field(256, ge=0)
    """About so many rows of each day outside the training split are also kept as raw values: what serving will be given."""
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    """Of the order of rows, of the negatives and of sampling."""
    simulate: SimulateConfig | None = None
    logs: str | None = None
    """Only to be interpolated: ``path: ${logs}/clicks``; one override then moves all logs."""

    @field_validator("day_time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        return Calendar(name).zone

    @model_validator(mode="after")
    def _whole(self) -> DataConfig:
        if "train" not in self.splits:
            raise ValueError("splits need one named train: vocabularies are made from its days")
        spans = sorted((split.first, split.last, name) for name, split in self.splits.items())
        for first, last, name in spans:
            if last < first:
                raise ValueError(f"split {name} ends before it begins")
            if first.year < PLAUSIBLE_YEARS[0] or last.year > PLAUSIBLE_YEARS[1]:
                raise ValueError(f"split {name} lies outside the years {PLAUSIBLE_YEARS[0]} to {PLAUSIBLE_YEARS[1]}")
        for (_, last, earlier), (first, _, later) in itertools.pairwise(spans):
            if first <= last:
                raise ValueError(f"splits {earlier} and {later} share days")
        for name, source, keys in self.sources():
            for key in keys:
                if key not in source.columns:
                    raise ValueError(f"{name}.columns needs {key!r}")
        unused = set(self.vocabularies) - self.vocabulary_names()
        if unused:
            raise ValueError(f"vocabularies names {', '.join(sorted(unused))}, which no field uses")
        self._check_mentions()
        check_names(self)
        self._check_history()
        return self

    def _check_mentions(self) -> None:
        partners = {"clicks": self.log.clicks, "items": self.items, "users": self.users, "behaviors": self.items}
        known = [name for name, source in partners.items() if source is not None]
        known += [f"lookups.{i}" for i in range(len(self.lookups))]
        unknown = set(self.quality.min_matched) - set(known)
        if unknown:
            raise ValueError(
                f"quality.min_matched names {', '.join(sorted(unknown))}; what can find a partner here is {', '.join(known) or 'nothing'}"
            )
        strangers = set(self.sampling.splits) - set(self.splits)
        if strangers:
            raise ValueError(f"sampling.splits names {', '.join(sorted(strangers))}, which is no split")
        columns = {column for column, _, _ in self.columns()}
        for key, names in (("max_unknown", self.quality.max_unknown), ("max_drift", self.quality.max_drift)):
            if set(names) - columns:
                raise ValueError(f"quality.{key} names {', '.join(sorted(set(names) - columns))}; columns are {sorted(columns)}")

    def _check_history(self) -> None:
        recorded = self.log.recorded_history
        if recorded is None:
            return
        if self.history.cutoff != "impression" or self.history.lag_hours:
            raise ValueError(
                "history.cutoff and history.lag_hours are of behaviors that are joined; what log.behaviors takes from the impressions "
                "was known then"
            )
        if recorded.times is None:
            for name, field in self.fields.behaviors.items():
                if field.kind == "time_gap":
                    raise ValueError(
                        f"fields.behaviors.{name}: a time_gap needs log.behaviors.times, which says when each happened"
                    )

    @property
    def recorded(self) -> Literal["dated", "undated"] | None:
        """Whether histories are those that the impressions bring along, and whether these say when."""
        history = self.log.recorded_history
        return None if history is None else "undated" if history.times is None else "dated"

    @property
    def history_rules(self) -> History:
        """The rules of histories, as the contract has them."""
        return History(**self.history.model_dump(), recorded=self.recorded)

    def sources(self) -> list[tuple[str, Source, list[str]]]:
        """All tables that are read: the place in the configuration, the table, and the columns that it must have."""
        event = ["user_id", "item_id", "time"]
        labeled = ["label"] * (self.log.kind == "labeled")
        sources: list[tuple[str, Source, list[str]]] = [
            ("log.impressions", self.log.impressions, ["impression_id", *event, *labeled])
        ]
        if self.log.clicks is not None:
            by_id = ["impression_id"] * (self.log.attribution_by == "impression_id")
            sources.append(("log.clicks", self.log.clicks, [*by_id, *event]))
        sources += [(f"log.behaviors.{action}", source, event) for action, source in self.log.behaviors.items()]
        if self.users is not None:
            sources.append(("users", self.users, ["user_id"]))
        if self.items is not None:
            sources.append(("items", self.items, ["item_id"]))
        sources += [(f"lookups.{i}", lookup, lookup.keys) for i, lookup in enumerate(self.lookups)]
        return sources

    def columns(self) -> list[tuple[str, str, FieldConfig]]:
        """Each field's column in the samples, its group, and what it is."""
        groups = {"candidate": "candidate", "behaviors": "behavior", "user": "user", "context": "context"}
        return [
            (f"{prefix}_{name}", group, field)
            for group, prefix in groups.items()
            for name, field in getattr(self.fields, group).items()
        ]

    def vocabulary_names(self) -> set[str]:
        """The vocabularies that categorical fields use."""
        groups = (self.fields.candidate, self.fields.behaviors, self.fields.user, self.fields.context)
        return {field.vocabulary or name for group in groups for name, field in group.items() if field.kind == "categorical"}

    @property
    def calendar(self) -> Calendar:
        """The days that a day in this configuration, and in the samples, is one of."""
        return Calendar(self.day_time_zone)

    def sampled(self, day: dt.date) -> float:
        """The share of a day's negatives that is kept."""
        thinned = any(day in self.splits[name] for name in self.sampling.splits)
        return self.sampling.negatives if thinned else 1.0
