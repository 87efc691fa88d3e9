"""Files are dealt out to tasks of equal work, and Spark takes them there."""

from __future__ import annotations

import datetime as dt
from collections import Counter

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipeline.scoring.tasks import TASK, deal_out, spark_hash, spread

DAY = dt.date(2026, 3, 1)


def test_the_hash_is_that_of_spark(spark: SparkSession) -> None:
    numbers = [0, 1, 2, 41, 1_000_003, 2**31 - 1]
    frame = spark.createDataFrame([(number,) for number in numbers], "number int")
    assert [row[0] for row in frame.select(F.hash("number")).collect()] == [spark_hash(number) for number in numbers]


def test_each_task_has_its_files_and_equal_work(spark: SparkSession) -> None:
    rows = {(DAY + dt.timedelta(days=n), file): 50_000.0 for n in range(3) for file in range(4)}
    tasks = deal_out(rows, 2)
    assert tasks.count == 6
    assert sorted(Counter(tasks.numbers.values()).values()) == [2] * 6
    frame = spark.createDataFrame([(day, file) for day, file in rows for _ in range(3)], "day date, file int")
    placed = spread(frame, tasks).withColumn("partition", F.spark_partition_id()).collect()
    assert len(placed) == 36
    assert len({row["partition"] for row in placed}) == 6
    assert len({(row["partition"], row[TASK]) for row in placed}) == 6, "no task has another's files"


def test_few_candidates_make_no_more_tasks_than_cores_and_no_more_than_files() -> None:
    many = {(DAY + dt.timedelta(days=n), 0): 100.0 for n in range(45)}
    tasks = deal_out(many, 4)
    assert tasks.count == 4
    assert sorted(Counter(tasks.numbers.values()).values()) == [11, 11, 11, 12]
    assert deal_out({(DAY, 0): 1e6}, 4).count == 1


def test_a_file_that_was_not_dealt_out_is_not_lost(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(DAY, 0), (DAY, 7)], "day date, file int")
    assert spread(frame, deal_out({(DAY, 0): 1.0}, 2)).count() == 2
