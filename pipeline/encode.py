"""From raw columns to samples: histories found and everything encoded, in one pass over partitions by user."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from pyspark.core.broadcast import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.contract import Encoder, Field, History
from pipeline.contract.document import ID_COLUMN, LABEL_COLUMN, LENGTH_COLUMN, TIME_COLUMN, USER_COLUMN
from pipeline.histories import Histories, find_histories, padded_lists, raw_lists
from pipeline.samples import micros

Batches = Iterable[pa.RecordBatch]

OUTPUT_ROWS = 20_000
#: Rows that one Python worker holds at a time: about a gigabyte with a dozen fields and 30 behaviors.
ROWS_PER_PARTITION = 500_000


def encoded_samples(
    impressions: DataFrame,
    behaviors: DataFrame,
    fields: tuple[Field, ...],
    history: History,
    vocabularies: Broadcast[dict[str, pa.Array]],
    rows: int,
) -> DataFrame:
    """The finished samples.

    Args:
        impressions: see :func:`pipeline.samples.impression_columns`.
        behaviors: see :func:`pipeline.samples.behavior_columns`.
        fields: what the samples hold.
        history: length and window of the behaviors.
        vocabularies: for each vocabulary its values, in the order of their ids.
        rows: about how many impressions there are.

    Returns:
        ``day`` and the columns of a sample as the contract describes them.
    """

    def encode(table: pa.Table, behavior_table: pa.Table, histories: Histories) -> dict[str, pa.Array]:
        encoder = _encoder(vocabularies)
        places, real = histories.padded(history.length)
        columns: dict[str, pa.Array] = {}
        for field in fields:
            if field.group == "behaviors":
                encoded = encoder.encode(field, behavior_table.column(field.column))
                columns[field.column] = padded_lists(encoded, real, places)
            else:
                columns[field.column] = pa.array(encoder.encode(field, table.column(field.column)))
        columns[LENGTH_COLUMN] = pa.array(real.sum(axis=1).astype(np.int32))
        return columns

    schema = _schema(fields, lambda f: T.IntegerType() if f.is_categorical else T.FloatType())
    schema = schema.add(LENGTH_COLUMN, T.IntegerType())
    return _with_histories(impressions, behaviors, history, encode, schema, rows)


def raw_samples(
    impressions: DataFrame, behaviors: DataFrame, fields: tuple[Field, ...], history: History, rows: int
) -> DataFrame:
    """The same rows before encoding: strings, doubles, and lists of them, the most recent first and as long as they are."""

    def gather(table: pa.Table, behavior_table: pa.Table, histories: Histories) -> dict[str, pa.Array]:
        return {
            field.column: raw_lists(behavior_table.column(field.column).combine_chunks(), histories)
            if field.group == "behaviors"
            else table.column(field.column).combine_chunks()
            for field in fields
        }

    schema = _schema(fields, lambda f: T.StringType() if f.is_categorical else T.DoubleType())
    return _with_histories(impressions, behaviors, history, gather, schema, rows)


def _schema(fields: tuple[Field, ...], kind: Callable[[Field], T.DataType]) -> T.StructType:
    schema = T.StructType()
    for field in fields:
        schema = schema.add(field.column, T.ArrayType(kind(field)) if field.group == "behaviors" else kind(field))
    return schema


def _with_histories(
    impressions: DataFrame,
    behaviors: DataFrame,
    history: History,
    fill: Callable[[pa.Table, pa.Table, Histories], dict[str, pa.Array]],
    schema: T.StructType,
    rows: int,
) -> DataFrame:
    """Bring impressions and behaviors of a user together and let ``fill`` make the field columns of each partition."""
    kept = T.StructType(
        [
            T.StructField("day", T.DateType()),
            T.StructField(ID_COLUMN, T.StringType()),
            T.StructField(TIME_COLUMN, T.LongType()),
            T.StructField(LABEL_COLUMN, T.IntegerType()),
            T.StructField(USER_COLUMN, T.LongType()),
        ]
    )
    window = dt.timedelta(days=history.days)

    def work(batches: Batches) -> Batches:
        arrived = list(batches)
        if not arrived:
            return
        table = pa.Table.from_batches(arrived).combine_chunks()
        is_impression = pa.compute.is_valid(table.column("day"))
        rows_in, events = table.filter(is_impression), table.filter(pa.compute.invert(is_impression))
        if not rows_in.num_rows:
            return
        histories = find_histories(rows_in, events, history.length, window)
        columns = {name: rows_in.column(name) for name in kept.fieldNames()} | fill(rows_in, events, histories)
        yield from pa.table(columns).to_batches(OUTPUT_ROWS)

    left = micros(impressions).withColumn(USER_COLUMN, F.xxhash64("user_id"))
    both = left.unionByName(micros(behaviors), allowMissingColumns=True)
    cores = impressions.sparkSession.sparkContext.defaultParallelism
    partitions = max(cores, -(-rows // ROWS_PER_PARTITION))
    return both.repartition(partitions, "user_id").mapInArrow(work, T.StructType(kept.fields + schema.fields))


_encoders: dict[int, Encoder] = {}


def _encoder(vocabularies: Broadcast[dict[str, pa.Array]]) -> Encoder:
    """One encoder a worker process: its tables are built once, not for every partition."""
    key = id(vocabularies.value)
    if key not in _encoders:
        _encoders.clear()
        _encoders[key] = Encoder(vocabularies.value)
    return _encoders[key]
