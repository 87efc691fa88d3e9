"""From published files to the canonical logs, one folder of Parquet files a log."""

from __future__ import annotations

import datetime as dt
import logging

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Log
from pipeline.importers.import_folder import ImportFolder, ImportRecord, LogSummary, record_of
from pipeline.importers.published_files import ImporterError, Published
from pipeline.importers.registry import IMPORTERS
from pipeline.io.storage import Storage

logger = logging.getLogger(__name__)

ROWS_A_FILE = 1_000_000


def import_logs(spark: SparkSession, dataset: str, folder: str, output: str, *, overwrite: bool = False) -> ImportRecord:
    """Import a published set, or find it imported.

    The published files are read twice: once to check each line, once to write.

    Args:
        spark: a session whose time zone is UTC; the rows do not depend on how many cores and partitions it has.
        dataset: a name of :data:`pipeline.importers.IMPORTERS`.
        folder: the published files lie in it, plain or compressed with gzip.
        output: the folder to be made.
        overwrite: replace another import at ``output``.

    Returns:
        What is at ``output`` now.

    Raises:
        ImporterError: no such set; files are missing or are not as published; something else is at ``output``.
    """
    importer = IMPORTERS.get(dataset)
    if importer is None:
        raise ImporterError(f"no data set {dataset!r}; there are {', '.join(sorted(IMPORTERS))}")
    published = Published(spark, folder.rstrip("/"), importer.home)
    wanted = record_of(dataset, published.files(importer.tables))
    target = ImportFolder(spark, output)
    finished = target.finished(wanted, overwrite=overwrite)
    if finished is not None:
        logger.info("%s: nothing to do, the logs are there", output)
        return finished
    target.clear()
    try:
        logs = importer.read(published)
        for name, log in logs.items():
            logger.info("writing %s", name)
            _write(log, f"{target.staging}/{name}")
        summaries = {name: _summary(spark, name, f"{target.staging}/{name}") for name in logs}
        record = wanted.model_copy(update={"published_rows": published.rows, "logs": summaries})
        target.publish(record.model_dump_json(indent=2) + "\n")
    finally:
        published.release()
        target.clear()
    return record


def _write(log: Log, path: str) -> None:
    """Few files a day, however few or many rows a day has: Spark splits large days and puts small ones into one task."""
    rows = log.frame.hint("rebalance", *[F.col(column) for column in log.partitions])
    if log.partitions:
        rows = rows.sortWithinPartitions(*log.partitions, "time")
    rows.write.option("maxRecordsPerFile", ROWS_A_FILE).partitionBy(*log.partitions).parquet(path)


def _summary(spark: SparkSession, name: str, path: str) -> LogSummary:
    if next(Storage(spark).files(path), None) is None:
        raise ImporterError(f"nothing would be in the log {name}; are these the published files?")
    written = spark.read.parquet(path)
    if "day" not in written.columns:
        return LogSummary(rows=written.count())
    days = {row["day"]: row["count"] for row in written.groupBy("day").count().collect()}
    first, last = min(days), max(days)
    between = (first + dt.timedelta(days=n) for n in range((last - first).days))
    return LogSummary(
        rows=sum(days.values()), first=first, last=last, empty_days=tuple(day for day in between if day not in days)
    )
