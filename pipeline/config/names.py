"""Names that a configuration gives, and those that cannot stand beside each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from mian.contract.document import ID_COLUMN, LABEL_COLUMN, LENGTH_COLUMN, TIME_COLUMN, USER_COLUMN
from pipeline.config.sources import AttributeSource, Lookup

if TYPE_CHECKING:
    from pipeline.config.dataset import DataConfig

#: What Spark, file systems or this package read as something else than a part of a name.
_FORBIDDEN = re.compile(r"[`./\\*\x00-\x1f\x7f]")

#: Columns that every sample has beside its fields.
_OF_SAMPLES = (ID_COLUMN, USER_COLUMN, TIME_COLUMN, LABEL_COLUMN, LENGTH_COLUMN)


def check_names(config: DataConfig) -> None:
    """Refuse names that Spark, a file system or the samples cannot hold, and names that would hide one another.

    Names that differ in nothing but case are one name to Spark.

    Raises:
        ValueError: the place in the configuration, the name, what to do.
    """
    for name, source, _ in config.sources():
        _check_each(f"{name}.columns", source.columns)
        _refuse_twins(f"{name}.columns", source.columns)
    recorded = config.log.recorded_history
    if recorded is not None:
        _check_each("log.behaviors.columns", recorded.columns)
        _refuse_twins("log.behaviors.columns", recorded.columns)
    _check_label(config)
    for group, fields in config.fields:
        _check_each(f"fields.{group}", fields)
        _refuse_twins(f"fields.{group}", fields)
        _check_each(
            f"fields.{group}", {field.vocabulary for field in fields.values() if field.vocabulary is not None}, "vocabulary"
        )
    for tables, events in _joins(config):
        _check_join(tables, events)
    _check_samples(config)


def _check_each(place: str, names: Iterable[str], kind: str = "name") -> None:
    for name in names:
        if not name or name != name.strip() or name.startswith("_") or _FORBIDDEN.search(name):
            raise ValueError(
                f"{place}: {name!r} cannot be a {kind}: it must not be empty, begin with _ or a blank, end with a blank, or hold one of "
                r". / \ ` * or a control character; write another name, as in `geo_city: geo.city` for a nested column"
            )


def _refuse_twins(place: str, names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(f"{place}: {other!r} and {name!r} differ in case only, which Spark cannot tell apart; rename one")


def _check_label(config: DataConfig) -> None:
    for name, source, _ in config.sources():
        labeled = config.log.kind == "labeled" and source is config.log.impressions
        twin = next((column for column in source.columns if column.lower() == LABEL_COLUMN), None)
        if twin is not None and not (labeled and twin == LABEL_COLUMN):
            raise ValueError(
                f"{name}.columns: {twin!r} is what a labeled log says of its own impressions (`kind: labeled`); give the column "
                "another name"
            )


def _joins(config: DataConfig) -> Iterator[tuple[Mapping[str, Iterable[str]], Iterable[str]]]:
    """For each table of events: the tables that are joined to it, each with the columns that it adds, and its own columns."""
    items = _added("items", config.items)
    lookups = {f"lookups.{i}": _without_keys(lookup) for i, lookup in enumerate(config.lookups)}
    yield items | lookups | _added("users", config.users), config.log.impressions.columns
    recorded = config.log.recorded_history
    if recorded is not None:
        yield items, ["user_id", "item_id", "time", "action", *recorded.columns]
        return
    behaviors = config.log.behaviors.values() or [config.log.clicks or config.log.impressions]
    for source in behaviors:
        yield items, source.columns


def _added(name: str, source: AttributeSource | None) -> dict[str, Iterable[str]]:
    return {} if source is None else {name: source.attributes}


def _without_keys(lookup: Lookup) -> Iterable[str]:
    return [column for column in lookup.columns if column not in lookup.keys]


def _check_join(tables: Mapping[str, Iterable[str]], events: Iterable[str]) -> None:
    event_columns = {column.lower(): column for column in events}
    for name, columns in tables.items():
        for column in columns:
            twin = event_columns.get(column.lower())
            if twin is not None:
                but = "" if twin == column else f" but for the case ({twin!r})"
                raise ValueError(f"{name}.columns: {column!r} is a column of the events already{but}; give it another name")
        event_columns |= {column.lower(): column for column in columns}


def _check_samples(config: DataConfig) -> None:
    """Each column of the samples has one meaning, and so has each vocabulary."""
    columns = config.columns()
    places = {column: f"fields.{group}.{column.split('_', 1)[1]}" for column, group, _ in columns}
    for column, place in places.items():
        if column in _OF_SAMPLES:
            raise ValueError(
                f"{place}: its column would be {column}, which every sample has already; give the field another name"
            )
    bucketed = {column for column, _, field in columns if field.kind == "time_gap" or field.transform == "quantiles"}
    for column, _, field in columns:
        vocabulary = field.vocabulary or column.split("_", 1)[1]
        if field.kind == "categorical" and vocabulary in bucketed:
            raise ValueError(
                f"{places[column]}: its vocabulary would be {vocabulary!r}, the name of the buckets of {places[vocabulary]}; give it "
                "another one, as in `vocabulary: " + f"{column}`"
            )
