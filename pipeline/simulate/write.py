"""Simulates on Spark's workers, a chunk of users at a time, and writes the logs by day."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.simulation import SimulateConfig
from pipeline.simulate.clicks import simulate_clicks
from pipeline.simulate.log_rows import SCHEMA, batches
from pipeline.simulate.sessions import draw_sessions
from pipeline.simulate.summary import summarize
from pipeline.simulate.users import USERS_SCHEMA, draw_users, snapshots
from pipeline.simulate.world import world_of
from pipeline.simulate.world_folder import WorldFolder, WorldRecord, record_of

logger = logging.getLogger(__name__)

ROWS_A_FILE = 1_000_000
_ROWS_A_TASK = 250_000
_PARTITIONS_A_CORE = 8
_TIMESTAMP_TYPE = "spark.sql.parquet.outputTimestampType"

IMPRESSION_COLUMNS = (
    "impression_id", "user_id", "item_id", "event_time", "position", "device", "city", "weather", "page",
)  # fmt: skip
CLICK_COLUMNS = ("impression_id", "user_id", "item_id", "event_time")

_SPARK_TYPES = {
    pa.string(): "string",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamp",
    pa.int32(): "int",
    pa.float64(): "double",
}


def simulate_logs(spark: SparkSession, config: SimulateConfig, *, overwrite: bool = False) -> WorldRecord:
    """Write the logs of a world (docs/concepts/simulated-world.md), or find them written.

    Args:
        spark: a session; the rows do not depend on how many cores and partitions it has.
        config: the world.
        overwrite: replace another world at ``config.output``.

    Raises:
        SimulateError: something else is at ``config.output``.
    """
    folder = WorldFolder(spark, config.output)
    finished = folder.finished(config, overwrite=overwrite)
    if finished is not None:
        logger.info("%s: nothing to do, the logs are there", config.output)
        return finished
    folder.clear()
    simulated = simulated_rows(spark, config).persist(StorageLevel.DISK_ONLY)
    timestamps = spark.conf.get(_TIMESTAMP_TYPE)
    spark.conf.set(_TIMESTAMP_TYPE, "TIMESTAMP_MICROS")  # not the INT96 of old
    try:
        rows = _write_logs(spark, config, simulated, folder.staging)
        record = record_of(config, summarize(simulated, rows))
    finally:
        spark.conf.set(_TIMESTAMP_TYPE, timestamps or "INT96")
        simulated.unpersist()
    folder.publish(record.model_dump_json(indent=2) + "\n")
    return record


def simulated_rows(spark: SparkSession, config: SimulateConfig, partitions: int | None = None) -> DataFrame:
    """All impressions and clicks, duplicates and orphans included, in the columns of ``pipeline.simulate.log_rows.SCHEMA``.

    Args:
        spark: the session.
        config: the world.
        partitions: of the work; by default a few a core.
    """
    return _chunks(spark, config, partitions).mapInArrow(partial(_play_chunks, config), _ddl(SCHEMA))


def user_snapshots(spark: SparkSession, config: SimulateConfig, partitions: int | None = None) -> DataFrame:
    """The weekly snapshots of all users who have filled in a profile."""
    return _chunks(spark, config, partitions).mapInArrow(partial(_snapshot_chunks, config), _ddl(USERS_SCHEMA))


def _write_logs(spark: SparkSession, config: SimulateConfig, simulated: DataFrame, staging: str) -> dict[str, int]:
    impressions = simulated.where(F.col("log") == "impressions")
    _write_days(impressions.select("day", *IMPRESSION_COLUMNS), f"{staging}/impressions", config.impressions, config.days)
    clicks = simulated.where(F.col("log") == "clicks").select("day", *CLICK_COLUMNS)
    _write_days(clicks, f"{staging}/clicks", config.impressions // 8, config.days + 1)
    truth = impressions.where(F.col("probability").isNotNull()).select("day", "impression_id", "probability", "attainable")
    _write_days(truth, f"{staging}/truth", config.impressions, config.days)
    weeks = -(-config.days // 7)
    _write_days(user_snapshots(spark, config), f"{staging}/users", config.user_count * weeks, weeks)
    items = world_of(config).items.table()
    spark.createDataFrame(pa.Table.from_batches([items])).coalesce(1).write.parquet(f"{staging}/items")
    return {"users": spark.read.parquet(f"{staging}/users").count(), "items": items.num_rows}


def _write_days(rows: DataFrame, path: str, expected: int, days: int) -> None:
    """One file a day, or several of a million rows or fewer; rows sorted, so that the same world has the same files.

    Args:
        rows: with a column ``day``, which becomes the partition.
        path: the folder.
        expected: about how many rows there are.
        days: how many days.
    """
    key = "event_time" if "event_time" in rows.columns else rows.columns[1]
    unique = "impression_id" if "impression_id" in rows.columns else key
    files_a_day = -(-expected // (days * ROWS_A_FILE))
    cores = rows.sparkSession.sparkContext.defaultParallelism
    tasks = min(days * files_a_day, max(cores, expected // _ROWS_A_TASK))
    place = F.pmod(F.xxhash64(unique), F.lit(files_a_day))
    ordered = rows.repartition(tasks, "day", place).sortWithinPartitions("day", key, unique)
    ordered.write.option("maxRecordsPerFile", ROWS_A_FILE).partitionBy("day").parquet(path)


def _chunks(spark: SparkSession, config: SimulateConfig, partitions: int | None) -> DataFrame:
    count = world_of(config).chunks
    wanted = partitions or spark.sparkContext.defaultParallelism * _PARTITIONS_A_CORE
    return spark.range(0, count, 1, min(count, wanted))


def _play_chunks(config: SimulateConfig, chunks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    world = world_of(config)
    for chunk in _numbers(chunks):
        users = draw_users(world, chunk)
        sessions = draw_sessions(world, chunk, users)
        yield from batches(world, chunk, users, sessions, simulate_clicks(world, chunk, users, sessions))


def _snapshot_chunks(config: SimulateConfig, chunks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    world = world_of(config)
    for chunk in _numbers(chunks):
        yield from snapshots(world, draw_users(world, chunk))


def _numbers(chunks: Iterator[pa.RecordBatch]) -> Iterator[int]:
    for batch in chunks:
        yield from batch.column(0).to_pylist()


def _ddl(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {_SPARK_TYPES[field.type]}" for field in schema)
