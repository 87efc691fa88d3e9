"""What a data set's YAML file under ``conf/data/`` may say."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.contract import Split
from pipeline.simulate.config import SimulateConfig

LogKind = Literal["impressions_and_clicks", "labeled", "positives_only"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A table: where it lies and what its columns are called here."""

    path: str
    format: Literal["parquet", "csv", "json", "orc"] = "parquet"
    options: dict[str, str | bool | int] = {}
    """Options of Spark's reader, such as ``header: true``."""
    table_schema: str | None = Field(None, alias="schema")
    """A DDL string for formats that do not carry their types: ``user_id STRING, ts BIGINT``."""
    columns: dict[str, str]
    """Name here -> Spark SQL expression over the source's own columns."""
    where: str | None = None
    """A Spark SQL condition over the source's own columns."""
    day_column: str | None = None
    """A partition column with the date (UTC) of ``time``; only the days that are needed are then read."""


class Lookup(Source):
    """Columns joined to the impressions by equality on ``keys``; of rows with one key the greatest counts."""

    keys: list[str]


class Negatives(_Strict):
    """How many negatives are drawn for a positive, among the items with an event in the seven days that end with the positive's."""

    uniform: int = Field(0, ge=0)
    """Each such item with the same chance."""
    popularity: int = Field(0, ge=0)
    """Each with a chance in proportion to its events in those days."""

    @model_validator(mode="after")
    def _some(self) -> Negatives:
        if self.uniform + self.popularity == 0:
            raise ValueError("say how many: uniform, popularity or both")
        return self


class Log(_Strict):
    """What was shown and what was clicked."""

    kind: LogKind
    impressions: Source
    """Columns ``impression_id``, ``user_id``, ``item_id``, ``time`` and any others; ``label`` (0 or 1) too where the kind is
    ``labeled``. Where it is ``positives_only`` a row is a click or a purchase."""
    clicks: Source | None = None
    """Columns ``impression_id``, ``user_id``, ``item_id``, ``time`` (of the click) and any others."""
    attribution_hours: float = Field(24.0, gt=0)
    """A click within so many hours after its impression makes its label 1."""
    negatives: Negatives | None = None
    empty_days: list[dt.date] = []
    """Days that are known to have no impressions, such as holidays; any other empty day is an error."""

    @model_validator(mode="after")
    def _parts(self) -> Log:
        if (self.kind == "impressions_and_clicks") != (self.clicks is not None):
            raise ValueError("clicks are given where kind is impressions_and_clicks, and only there")
        if (self.kind == "positives_only") != (self.negatives is not None):
            raise ValueError("negatives are given where kind is positives_only, and only there")
        return self


class FieldConfig(_Strict):
    """One field of a group."""

    kind: Literal["categorical", "numeric"] = "categorical"
    expression: str | None = None
    """Spark SQL over the joined columns; the column of the field's name where it is not given."""
    vocabulary: str | None = None
    """Fields that name one vocabulary share ids and embeddings; the field's name where it is not given."""
    transform: Literal["log", "identity"] | None = None
    """Of a numeric field, before it is standardized; identity where it is not given."""

    @model_validator(mode="after")
    def _kinds(self) -> FieldConfig:
        if self.kind == "numeric" and self.vocabulary is not None:
            raise ValueError("a numeric field has no vocabulary")
        if self.kind == "categorical" and self.transform is not None:
            raise ValueError("a categorical field has no transform")
        return self


class Fields(_Strict):
    """The four groups of Zhang et al. 2021, section 3.1; the order of fields is the order in the model."""

    candidate: dict[str, FieldConfig] = Field(min_length=1)
    behaviors: dict[str, FieldConfig] = {}
    user: dict[str, FieldConfig] = {}
    context: dict[str, FieldConfig] = {}


class VocabularyConfig(_Strict):
    """Which values get an id of their own."""

    min_count: int = Field(2, ge=1)
    """Rarer values in the training days are unknown (id 1), which gives that id something to learn from."""
    max_size: int | None = Field(None, ge=3)
    """Of more values the most frequent are kept; padding and unknown count."""


class HistoryConfig(_Strict):
    """The behaviors before an impression (section 4.1.2: the clicks of the previous 29 days, at most 30)."""

    length: int = Field(30, ge=1)
    days: int = Field(29, ge=1)


class DataConfig(_Strict):
    """A data set: its logs, its fields, its splits, where its samples go."""

    name: str
    samples: str
    """The folder that ``build_samples`` fills."""
    log: Log
    users: Source | None = None
    """Columns ``user_id`` and any others; with ``valid_from`` (a timestamp) the last row before the impression counts."""
    items: Source | None = None
    """Columns ``item_id`` and any others; ``valid_from`` as for users."""
    lookups: list[Lookup] = []
    fields: Fields
    vocabularies: dict[str, VocabularyConfig] = {}
    history: HistoryConfig = HistoryConfig()
    splits: dict[str, Split]
    rows_per_file: int = Field(50_000, ge=1)
    examples_per_day: int = Field(256, ge=0)
    """About so many rows of each day outside the training split are also kept as raw values: what serving will be given."""
    seed: int = 0
    """Of the order of rows and of the negatives."""
    simulate: SimulateConfig | None = None
    logs: str | None = None
    """Only to be interpolated: ``path: ${logs}/clicks``; one override then moves all logs."""

    @model_validator(mode="after")
    def _whole(self) -> DataConfig:
        if "train" not in self.splits:
            raise ValueError("splits need one named train: vocabularies are made from its days")
        spans = sorted((split.first, split.last, name) for name, split in self.splits.items())
        for first, last, name in spans:
            if last < first:
                raise ValueError(f"split {name} ends before it begins")
        for (_, last, earlier), (first, _, later) in itertools.pairwise(spans):
            if first <= last:
                raise ValueError(f"splits {earlier} and {later} share days")
        for name, source, keys in self._sources():
            for key in keys:
                if key not in source.columns:
                    raise ValueError(f"{name}.columns needs {key!r}")
        unused = set(self.vocabularies) - self.vocabulary_names()
        if unused:
            raise ValueError(f"vocabularies names {', '.join(sorted(unused))}, which no field uses")
        return self

    def _sources(self) -> list[tuple[str, Source, list[str]]]:
        event = ["impression_id", "user_id", "item_id", "time"]
        sources = [("log.impressions", self.log.impressions, event + ["label"] * (self.log.kind == "labeled"))]
        if self.log.clicks is not None:
            sources.append(("log.clicks", self.log.clicks, event))
        if self.users is not None:
            sources.append(("users", self.users, ["user_id"]))
        if self.items is not None:
            sources.append(("items", self.items, ["item_id"]))
        sources += [(f"lookups.{i}", lookup, lookup.keys) for i, lookup in enumerate(self.lookups)]
        return sources

    def vocabulary_names(self) -> set[str]:
        """The vocabularies that the fields use."""
        groups = (self.fields.candidate, self.fields.behaviors, self.fields.user, self.fields.context)
        return {field.vocabulary or name for group in groups for name, field in group.items() if field.kind == "categorical"}

    @property
    def attribution(self) -> dt.timedelta:
        """How long after its impression a click still counts."""
        return dt.timedelta(hours=self.log.attribution_hours)
