"""The Spark session of every job, with the few settings that the samples depend on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from pyspark.sql import SparkSession


def spark_session(name: str, settings: Mapping[str, str] | None = None) -> SparkSession:
    """Get or start the session; master, memory and the like are ``spark-submit``'s to say.

    What is set here is what the data depends on: UTC clocks, errors instead of silent nulls in casts (ANSI), no files beside
    those that are published. Python workers run this same interpreter unless ``PYSPARK_PYTHON`` says otherwise.

    Args:
        name: what the application is called.
        settings: others of Spark's that the job needs.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(name)
    for key, value in (settings or {}).items():
        builder = builder.config(key, value)
    session = (
        builder.config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.ansi.enabled", "true")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.adaptive.enabled", "true")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
        # no .crc files beside what is published; the contract has checksums of its own
        .config("spark.hadoop.fs.file.impl", "org.apache.hadoop.fs.RawLocalFileSystem")
        .config("spark.hadoop.fs.AbstractFileSystem.file.impl", "org.apache.hadoop.fs.local.RawLocalFs")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    # an expression that does not fit is an error of ours with a sentence of its own, or no error at all
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL + 1)
    session.sparkContext.setLogLevel(os.environ.get("MIAN_SPARK_LOG", "ERROR"))
    return session
