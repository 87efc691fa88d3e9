"""Vocabularies and numeric transforms, made from training days only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config import DataConfig, FieldConfig, VocabularyConfig
from pipeline.contract import Field, NumericTransform
from pipeline.contract.document import GROUPS
from pipeline.contract.encoder import FIRST_ID

#: Digits kept of a mean and a standard deviation: distributed sums differ in the last bits from run to run, a data set must not.
SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Fitted:
    """What was learned of the training days: a table ``value``, ``count`` for each vocabulary in the order of ids, and the fields."""

    vocabularies: Mapping[str, pa.Table]
    fields: tuple[Field, ...]


def fit(config: DataConfig, impressions: DataFrame, behaviors: DataFrame) -> Fitted:
    """Make vocabularies and transforms.

    Args:
        config: the data set.
        impressions: the training days' raw columns, see :func:`pipeline.samples.impression_columns`.
        behaviors: those of the behaviors that their histories can hold.

    Returns:
        Vocabularies by falling count, ties by value; a field of a value that is rare, or over the size, has no id of its own.
    """
    frames = {"behaviors": behaviors}
    columns: dict[str, list[tuple[DataFrame, str]]] = defaultdict(list)
    for group, name, field in _members(config):
        if field.kind == "categorical":
            columns[field.vocabulary or name].append((frames.get(group, impressions), _column(group, name)))
    vocabularies = _count(columns, config)
    fields = []
    for group, name, field in _members(config):
        if field.kind == "categorical":
            fields.append(Field(group=group, name=name, vocabulary=field.vocabulary or name))
        else:
            transform = _transform(frames.get(group, impressions), _column(group, name), field)
            fields.append(Field(group=group, name=name, transform=transform))
    return Fitted(vocabularies, tuple(fields))


def _members(config: DataConfig) -> list[tuple[str, str, FieldConfig]]:
    groups = config.fields
    return [(group, name, field) for group in GROUPS for name, field in getattr(groups, group).items()]


def _column(group: str, name: str) -> str:
    return f"{'behavior' if group == 'behaviors' else group}_{name}"


def _count(columns: Mapping[str, list[tuple[DataFrame, str]]], config: DataConfig) -> dict[str, pa.Table]:
    """Count all vocabularies' values; each table of events is read once."""
    by_frame: dict[int, tuple[DataFrame, list[tuple[str, str]]]] = {}
    for vocabulary, places in columns.items():
        for frame, column in places:
            by_frame.setdefault(id(frame), (frame, []))[1].append((vocabulary, column))
    counted: DataFrame | None = None
    for frame, members in by_frame.values():
        pairs = F.array(*[F.struct(F.lit(v).alias("vocabulary"), F.col(c).alias("value")) for v, c in members])
        values = frame.select(F.explode(pairs).alias("pair")).select("pair.*").where("value IS NOT NULL")
        counts = values.groupBy("vocabulary", "value").count()
        counted = counts if counted is None else counted.unionByName(counts)
    if counted is None:
        return {}
    totals = counted.groupBy("vocabulary", "value").agg(F.sum("count").alias("count"))
    floors = F.coalesce(*[F.when(F.col("vocabulary") == v, F.lit(_of(config, v).min_count)) for v in columns])
    table = totals.where(F.col("count") >= floors).toArrow()
    return {v: _cut(table.filter(pa.compute.equal(table.column("vocabulary"), v)), _of(config, v)) for v in columns}


def _of(config: DataConfig, vocabulary: str) -> VocabularyConfig:
    return config.vocabularies.get(vocabulary, VocabularyConfig())


def _cut(table: pa.Table, options: VocabularyConfig) -> pa.Table:
    ranked = table.select(["value", "count"]).sort_by([("count", "descending"), ("value", "ascending")])
    return ranked if options.max_size is None else ranked.slice(0, options.max_size - FIRST_ID)


def _transform(frame: DataFrame, column: str, field: FieldConfig) -> NumericTransform:
    kind = field.transform or "identity"
    value = F.signum(column) * F.log1p(F.abs(column)) if kind == "log" else F.col(column)
    finite = frame.where(F.col(column).isNotNull() & ~F.isnan(column))
    facts = finite.select(value.alias("value")).agg(F.mean("value").alias("mean"), F.stddev_pop("value").alias("std")).first()
    mean, std = (facts["mean"], facts["std"]) if facts is not None else (None, None)
    return NumericTransform(kind=kind, mean=_rounded(mean or 0.0), std=_rounded(std) if std else 1.0)


def _rounded(value: float) -> float:
    return 0.0 if value == 0 else round(value, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value))))
