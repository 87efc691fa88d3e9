"""Writing the files of finished days to a staging folder, and finding their names."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from mian.contract import ContractError, SampleFile
from pipeline.encoding.sample_files import EXAMPLES, FACTS, PART, QUARANTINE
from pipeline.encoding.statistics import Counts
from pipeline.io.files import literal, plain
from pipeline.io.parquet_files import write_files

#: Hexadecimal digits of a checksum that are part of a file's name.
NAME_DIGITS = 16

_PLACED = "day date, file int"
_PLACE = re.compile(r"/kind=([a-z]+)/day=([0-9-]+)/file=(-?\d+)/")


@dataclass
class WrittenDay:
    """The files of a day, staged, and what they hold."""

    files: list[SampleFile] = field(default_factory=list)
    examples: SampleFile | None = None
    quarantine: SampleFile | None = None
    counts: list[Counts] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Staged:
    """Written days, and the names in the data set that their files are to get, by the paths where they lie."""

    days: Mapping[dt.date, WrittenDay]
    names: Mapping[str, str]


def stage_files(spark: SparkSession, files: DataFrame, folder: str) -> Staged:
    """Write files.

    Args:
        spark: the session.
        files: see :func:`pipeline.encoding.sample_files.encode_files`.
        folder: where to; it is not there yet.

    Raises:
        ContractError: a file that was written is not there.
    """
    write_files(files, folder)
    days: dict[dt.date, WrittenDay] = defaultdict(WrittenDay)
    rows: dict[tuple[str, dt.date, int], int] = {}
    facts = spark.read.schema(_PLACED + ", facts string").parquet(literal(f"{folder}/kind={FACTS}"))
    for row in facts.collect():
        found = json.loads(row["facts"])
        rows |= {(kind, row["day"], row["file"]): n for kind, n in found.pop("files").items()}
        days[row["day"]].rejected |= found.pop("rejected", {})
        days[row["day"]].counts.append(found)
    names: dict[str, str] = {}
    sums = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(literal(folder))
    for path, size, sha256 in sorted(sums.selectExpr("path", "length", "sha2(content, 256)").collect()):
        place = _PLACE.search(path)
        assert place is not None
        kind, day, file = place[1], dt.date.fromisoformat(place[2]), int(place[3])
        if kind == FACTS:
            continue
        name = f"day={day}/{kind}-{max(file, 0):05d}-{sha256[:NAME_DIGITS]}.parquet"
        written = SampleFile(path=name, rows=rows.pop((kind, day, file)), bytes=size, sha256=sha256)
        if kind == PART:
            days[day].files.append(written)
        elif kind == EXAMPLES:
            days[day].examples = written
        elif kind == QUARANTINE:
            days[day].quarantine = written
        names[plain(path)] = name
    if rows:
        lost = ", ".join(f"{kind} {file} of {day}" for kind, day, file in sorted(rows))
        raise ContractError(f"{folder}: {lost} was written and is not there; is the file system whole? Build again")
    for written_day in days.values():
        written_day.files.sort(key=lambda file: file.path)
    return Staged(dict(days), names)
