"""Vocabularies and numeric transforms, made from training days only."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mian.contract import Contract, Encoder, Field, NumericTransform, Reference, Vocabulary
from mian.contract.document import LABEL_COLUMN, LENGTH_COLUMN
from mian.contract.encoder import FIRST_ID, fitted_on, missing_numbers
from pipeline.config import DataConfig, FieldConfig, VocabularyConfig
from pipeline.encoding.statistics import NUMBER_BINS, measure, shares
from pipeline.io.arrow_ipc import ipc_table
from pipeline.join.blobs import unpack
from pipeline.join.outputs import COUNTS, MOMENTS, SAMPLE, SEEN_COLUMN

log = logging.getLogger(__name__)

#: Digits kept of a mean and a standard deviation: distributed sums differ in the last bits from run to run, a data set must not.
SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Fitted:
    """What was learned of the training days.

    ``vocabularies`` say how values become ids, those that are tables without their files; ``tables`` have ``value`` and ``count`` for
    each of these in the order of ids.
    """

    fields: tuple[Field, ...]
    vocabularies: tuple[Vocabulary, ...]
    tables: Mapping[str, pa.Table]


class TrainingDays:
    """What the join found in the training days: counts of values, moments of numbers, some samples.

    Args:
        config: the data set.
        joined: see :func:`pipeline.join.partition.join_by_user`.
    """

    def __init__(self, config: DataConfig, joined: DataFrame) -> None:
        self.config = config
        self.counted = _count(config, joined)
        few = joined.where(F.col("kind").isin(MOMENTS, SAMPLE)).select("kind", "payload").collect()
        self.moments = _moments(bytes(row["payload"]) for row in few if row["kind"] == MOMENTS)
        self.sample = _Samples(bytes(row["payload"]) for row in few if row["kind"] == SAMPLE)


def fit(days: TrainingDays) -> Fitted:
    """Make vocabularies and transforms.

    Returns:
        Vocabularies by falling count, ties by value; a value that is rare, or over the size, has no id of its own.
    """
    config = days.config
    fields, vocabularies = [], dict[str, Vocabulary]()
    tables: dict[str, pa.Table] = {}
    for column, group, member in config.columns():
        name = column.split("_", 1)[1]
        field, vocabulary = _field(days, group, name, column, member)
        fields.append(field)
        if vocabulary is None:
            continue
        if vocabulary.kind == "table":
            tables[vocabulary.name] = _ranked(days.counted, vocabulary.name, _of(config, vocabulary.name))
            vocabulary = vocabulary.model_copy(update={"size": tables[vocabulary.name].num_rows + FIRST_ID})
        vocabularies.setdefault(vocabulary.name, vocabulary)
    return Fitted(tuple(fields), tuple(vocabularies.values()), tables)


def extend(days: TrainingDays, name: str, table: pa.Table) -> pa.Table:
    """Values of new training days that a vocabulary lacks, behind those that it has: ids never move.

    Args:
        days: the new ones.
        name: the vocabulary.
        table: ``value`` and ``count`` in the order of ids.
    """
    options = _of(days.config, name)
    if options.values is not None:
        return table
    found = _ranked(days.counted, name, options.model_copy(update={"max_size": None}))
    new = found.filter(pc.invert(pc.is_in(found.column("value"), table.column("value").combine_chunks())))
    if options.max_size is not None:
        new = new.slice(0, max(0, options.max_size - FIRST_ID - table.num_rows))
    return pa.concat_tables([table, new.cast(table.schema)])


def references(contract: Contract, tables: Mapping[str, pa.Table], days: TrainingDays) -> dict[str, Reference]:
    """How the values of each column are spread over a sample of the training days.

    Args:
        contract: fields and vocabularies.
        tables: of the vocabularies that are tables.
        days: those that they were made from.
    """
    encoder = Encoder(contract.vocabularies, {name: table.column("value") for name, table in tables.items()})
    sample = days.sample
    columns: dict[str, npt.NDArray[Any]] = {LABEL_COLUMN: sample.plain(LABEL_COLUMN), LENGTH_COLUMN: sample.lengths(contract)}
    behaviors: dict[str, npt.NDArray[Any]] = {}
    missing: dict[str, int] = {}
    for field in contract.fields:
        target, raw = behaviors if field.group == "behaviors" else columns, sample.raw(field.column)
        target[field.column] = encoder.encode(field, raw)
        missing[field.column] = missing_numbers(raw) if not field.is_categorical else raw.null_count
        if len(raw) and missing[field.column] == len(raw):
            log.warning(
                "fields.%s.%s: not one of %s values of the training days is known; is its expression right?",
                field.group,
                field.name,
                f"{len(raw):,}",
            )
    edges = {}
    for field in contract.fields:
        if not field.is_categorical:
            values = (behaviors if field.group == "behaviors" else columns)[field.column]
            edges[field.column] = Reference(shares=(), edges=quantiles(values, NUMBER_BINS))
    ages = np.zeros(1, np.int64)
    known = contract.model_copy(update={"reference": edges})
    counts = measure(known, columns, behaviors, sample.plain(SEEN_COLUMN), ages, missing)["columns"]
    return {
        name: Reference(shares=shares(column["counts"]), edges=edges[name].edges if name in edges else None)
        for name, column in counts.items()
    }


def quantiles(values: npt.NDArray[Any], buckets: int) -> tuple[float, ...]:
    """The edges between about equally full buckets, rising; fewer where values repeat, none where there are no values."""
    finite = fitted_on(values.astype(np.float64))
    if not len(finite):
        return ()
    edges = np.quantile(finite, np.arange(1, buckets) / buckets, method="inverted_cdf")
    return tuple(_rounded(edge) for edge in np.unique(edges).tolist())


def gap_edges(days: int, lag_hours: float) -> tuple[float, ...]:
    """Powers of two, in seconds, up to the oldest behavior that a history can hold."""
    longest = (days + 1) * 86_400 + lag_hours * 3_600
    return tuple(float(2**k) for k in range(math.ceil(math.log2(longest)) + 1))


class _Samples:
    """Some packed samples."""

    def __init__(self, payloads: Iterable[bytes]) -> None:
        self._tables = [unpack(payload)[0] for payload in payloads]

    def plain(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, np.int64), *[table.column(name).to_numpy() for table in self._tables]])

    def raw(self, name: str) -> pa.Array:
        """A column's values, those of lists one after the other."""
        arrays = []
        for table in self._tables:
            array = table.column(name).combine_chunks()
            array = array.flatten() if pa.types.is_list(array.type) else array
            arrays.append(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array)
        return pa.concat_arrays(arrays) if arrays else pa.array([], pa.null())

    def lengths(self, contract: Contract) -> npt.NDArray[np.int32]:
        fields = contract.group("behaviors")
        if not fields:
            return np.zeros(len(self.plain(LABEL_COLUMN)), np.int32)
        parts = [pc.list_value_length(table.column(fields[0].column)).to_numpy() for table in self._tables]
        lengths: npt.NDArray[np.int32] = np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32)
        return lengths


def _field(
    days: TrainingDays,
    group: str,
    name: str,
    column: str,
    member: FieldConfig,
) -> tuple[Field, Vocabulary | None]:
    config, place = days.config, {"group": group, "name": name}
    if member.kind == "time_gap":
        edges = gap_edges(config.history.days, config.history.lag_hours)
    elif member.transform == "quantiles":
        edges = quantiles(
            days.sample.raw(column).to_numpy(zero_copy_only=False).astype(np.float64), member.buckets or NUMBER_BINS
        )
    elif member.kind == "numeric":
        kind = "log" if member.transform == "log" else "identity"
        plain = NumericTransform(kind=kind, mean=0.0, std=1.0)
        return Field(**place, transform=days.moments.get(column, plain).model_copy(update={"kind": kind})), None
    else:
        vocabulary = member.vocabulary or name
        buckets = _of(config, vocabulary).hash_buckets
        made = Vocabulary(name=vocabulary, size=FIRST_ID, kind="table")
        if buckets is not None:
            made = Vocabulary(name=vocabulary, size=FIRST_ID + buckets, kind="hash")
        return Field(**place, vocabulary=vocabulary), made
    made = Vocabulary(name=column, size=FIRST_ID + len(edges) + 1, kind="buckets", edges=edges)
    return Field(**place, vocabulary=column, kind="number" if member.kind == "numeric" else "time_gap"), made


def _count(config: DataConfig, joined: DataFrame) -> pa.Table:
    """How often the values of each vocabulary that is a table occur, but for those that are too rare."""

    def opened(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            for payload in batch.column(0):
                yield from ipc_table(payload.as_buffer()).to_batches()

    # a row or two of each partition: not worth a task for each
    counts = joined.where(F.col("kind") == COUNTS).select("payload").coalesce(joined.sparkSession.sparkContext.defaultParallelism)
    counts = counts.mapInArrow(opened, "vocabulary string, value string, count long")
    totals = counts.groupBy("vocabulary", "value").agg(F.sum("count").alias("count"))
    names = sorted(name for name in config.vocabulary_names() if _of(config, name).hash_buckets is None)
    frequent = F.lit(False)
    for name in names:
        options = _of(config, name)
        enough = F.col("count") >= options.min_count if options.values is None else F.col("value").isin(options.values)
        frequent = frequent | ((F.col("vocabulary") == name) & enough)
    return totals.where(frequent).toArrow()


def _moments(payloads: Iterable[bytes]) -> dict[str, NumericTransform]:
    """Mean and standard deviation of each numeric column, from those of its parts (Chan, Golub and LeVeque 1979)."""
    parts = [json.loads(payload) for payload in payloads]
    transforms = {}
    for column in dict.fromkeys(name for part in parts for name in part):
        n, mean, squares = 0, 0.0, 0.0
        for count, part_mean, part_squares in (part[column] for part in parts if column in part):
            if count:
                delta = part_mean - mean
                squares += part_squares + delta**2 * n * count / (n + count)
                mean += delta * count / (n + count)
                n += count
        std = math.sqrt(squares / n) if n else 0.0
        # of equal numbers the deviation is 0, or what rounding left of it
        spread = std if std > 1e-12 * abs(mean) else 0.0
        transforms[column] = NumericTransform(kind="identity", mean=_rounded(mean), std=_rounded(spread) or 1.0)
    return transforms


def _of(config: DataConfig, vocabulary: str) -> VocabularyConfig:
    return config.vocabularies.get(vocabulary, VocabularyConfig())


def _ranked(counted: pa.Table, vocabulary: str, options: VocabularyConfig) -> pa.Table:
    table = counted.filter(pc.equal(counted.column("vocabulary"), vocabulary)).select(["value", "count"])
    if options.values is not None:
        counts = dict(zip(*(table[c].to_pylist() for c in ("value", "count")), strict=True))
        return _table(options.values, [counts.get(value, 0) for value in options.values])
    ranked = table.sort_by([("count", "descending"), ("value", "ascending")])
    ranked = ranked if options.max_size is None else ranked.slice(0, options.max_size - FIRST_ID)
    return _table(ranked["value"], ranked["count"])


def _table(values: Sequence[str] | pa.ChunkedArray, counts: Sequence[int] | pa.ChunkedArray) -> pa.Table:
    schema = pa.schema([("value", pa.string()), ("count", pa.int64())])
    return pa.table([values, counts], schema=schema)


def _rounded(value: float) -> float:
    return 0.0 if value == 0 else round(value, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value))))
