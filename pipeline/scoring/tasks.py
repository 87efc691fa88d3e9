"""Which task scores which file, so that tasks are few and have equal work.

Each task costs a Python worker some tenths of a second before it begins, and Spark spreads few groups over tasks by chance: some get
several and others none. So files are dealt out here, and a column of numbers, which Spark hashes to the tasks that are meant, takes each
file to its task.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

#: About so many candidates a task has at least.
ROWS_PER_TASK = 100_000

#: A day, and the number of one of its files.
File = tuple[dt.date, int]

TASK = "_task"


@dataclass(frozen=True)
class FileTasks:
    """How many tasks there are, and for each file the number that takes it to its task."""

    count: int
    numbers: Mapping[File, int]


def deal_out(rows: Mapping[File, float], cores: int) -> FileTasks:
    """Deal out files to tasks: the largest first, each to the task that has the least.

    Args:
        rows: about how many candidates each file has.
        cores: how many tasks run at a time; there are so many tasks, or a multiple.
    """
    rounds = max(1, round(sum(rows.values()) / (ROWS_PER_TASK * cores)))
    count = max(1, min(len(rows), rounds * cores))
    keys = _keys(count)
    loads = [(0.0, task) for task in range(count)]
    numbers = {}
    for file in sorted(rows, key=lambda file: (-rows[file], file)):
        load, task = heapq.heappop(loads)
        numbers[file] = keys[task]
        heapq.heappush(loads, (load + rows[file], task))
    return FileTasks(count, numbers)


def spread(blobs: DataFrame, tasks: FileTasks) -> DataFrame:
    """Bring the rows of each file, by columns ``day`` and ``file``, to its task; column :data:`TASK` is added."""
    numbers = [(day, file, number) for (day, file), number in tasks.numbers.items()]
    known = blobs.sparkSession.createDataFrame(numbers, f"day date, file int, {TASK} int")
    # a file that nobody dealt out is nobody's to lose
    numbered = blobs.join(F.broadcast(known), ["day", "file"], "left").withColumn(TASK, F.coalesce(TASK, F.lit(0)))
    return numbered.repartition(tasks.count, TASK)


def _keys(count: int) -> list[int]:
    """For each of some partitions a number that Spark's ``repartition`` takes there."""
    found: dict[int, int] = {}
    number = 0
    while len(found) < count:
        found.setdefault(spark_hash(number) % count, number)
        number += 1
    return [found[task] for task in range(count)]


def spark_hash(number: int) -> int:
    """Spark's ``hash`` of an integer: Murmur3 (Appleby 2008) of its four bytes with the seed 42."""
    mixed = _rotated(number * 0xCC9E2D51, 15) * 0x1B873593 & _WORD
    value = (_rotated(42 ^ mixed, 13) * 5 + 0xE6546B64 & _WORD) ^ 4
    value = (value ^ value >> 16) * 0x85EBCA6B & _WORD
    value = (value ^ value >> 13) * 0xC2B2AE35 & _WORD
    value ^= value >> 16
    return value - (value >> 31 << 32)


_WORD = 0xFFFFFFFF


def _rotated(value: int, bits: int) -> int:
    value &= _WORD
    return (value << bits | value >> 32 - bits) & _WORD
