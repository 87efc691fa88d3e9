"""Writing finished days so that nobody ever sees half of one.

Files are written to a staging folder, checked, renamed to names that no other content has, and become part of the data set when the
contract that names them replaces the one before. What no contract names is removed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.contract import CONTRACT_FILE, Contract, SampleFile
from pipeline.contract.document import ID_COLUMN, LABEL_COLUMN
from pipeline.parquet_files import write_files
from pipeline.storage import Storage

STAGING = "_staging"
#: The files that a build writes, relative to the data set's folder.
OURS = re.compile(r"day=[0-9-]+/(part|examples)-[0-9a-f-]+\.parquet|vocabularies/[0-9a-f]+/[^/]+\.parquet|.*\.tmp")


class Publisher:
    """Writes into one data set's folder.

    Args:
        spark: the session.
        folder: the data set.
    """

    def __init__(self, spark: SparkSession, folder: str) -> None:
        self._spark = spark
        self._storage = Storage(spark)
        self._folder = folder.rstrip("/")

    def contract(self) -> Contract | None:
        """The published contract, if there is one.

        Raises:
            ContractError: it cannot be read.
        """
        path = f"{self._folder}/{CONTRACT_FILE}"
        return Contract.from_json(self._storage.read_text(path), path) if self._storage.exists(path) else None

    def write_samples(
        self, samples: DataFrame, files_of: Mapping[dt.date, int], fingerprints: Mapping[dt.date, str], seed: int
    ) -> tuple[dict[dt.date, tuple[SampleFile, ...]], dict[dt.date, int]]:
        """Write samples: ``files_of[day]`` files of about even size, one row group each, rows in an order drawn from ``seed``.

        Which file a row is in, and where, depends on its id, the seed and the number of files alone.

        Returns:
            Each day's files and its number of positives.
        """
        file = F.pmod(F.xxhash64(ID_COLUMN, F.lit(seed)), by_day(files_of))
        return self._write(samples, file, "part", fingerprints, seed)

    def write_examples(self, examples: DataFrame, fingerprints: Mapping[dt.date, str], seed: int) -> dict[dt.date, SampleFile]:
        """Write raw rows, one file a day."""
        files, _ = self._write(examples, F.lit(0), "examples", fingerprints, seed)
        return {day: members[0] for day, members in files.items()}

    def _write(
        self, frame: DataFrame, file: Column, prefix: str, fingerprints: Mapping[dt.date, str], seed: int
    ) -> tuple[dict[dt.date, tuple[SampleFile, ...]], dict[dt.date, int]]:
        staging = f"{self._folder}/{STAGING}/{prefix}"
        self._storage.remove(staging)
        placed = frame.withColumns({"file": file, "_order": F.xxhash64(ID_COLUMN, F.lit(seed + 1))})
        placed = placed.repartition("day", "file").sortWithinPartitions("day", "file", "_order", ID_COLUMN).drop("_order")
        write_files(placed, staging)

        written = self._spark.read.parquet(staging)
        facts = written.groupBy("day", "file", F.col("_metadata.file_path").alias("path")).agg(
            F.count("*").alias("rows"), F.sum(LABEL_COLUMN).alias("positives")
        )
        sums = self._spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(staging)
        sums = sums.select("path", F.col("length").alias("bytes"), F.sha2("content", 256).alias("sha256"))
        files: dict[dt.date, list[SampleFile]] = defaultdict(list)
        positives: dict[dt.date, int] = defaultdict(int)
        checksums = {_plain(row["path"]): row for row in sums.collect()}
        for row in sorted(facts.collect(), key=lambda r: (r["day"], r["file"])):
            total = checksums[_plain(row["path"])]
            name = f"day={row['day']}/{prefix}-{row['file']:05d}-{fingerprints[row['day']][:12]}.parquet"
            files[row["day"]].append(SampleFile(path=name, rows=row["rows"], bytes=total["bytes"], sha256=total["sha256"]))
            positives[row["day"]] += row["positives"]
            self._storage.replace(row["path"], f"{self._folder}/{name}")
        self._storage.remove(staging)
        return {day: tuple(members) for day, members in files.items()}, positives

    def write_vocabulary(self, path: str, content: bytes) -> None:
        """Write a vocabulary's file, its path relative to the data set."""
        self._storage.write(f"{self._folder}/{path}", content)

    def read_vocabulary(self, path: str) -> bytes:
        """Read a vocabulary's file."""
        return self._storage.read_bytes(f"{self._folder}/{path}")

    def publish(self, contract: Contract) -> None:
        """Make a contract the data set's, then remove what it does not name."""
        self._storage.write(f"{self._folder}/{CONTRACT_FILE}", contract.to_json().encode())
        self.clean(contract)

    def clean(self, contract: Contract | None) -> None:
        """Remove what builds that were stopped half-way left, and what the contract no longer names; nothing that is not ours."""
        self._storage.remove(f"{self._folder}/{STAGING}")
        if not self._storage.exists(self._folder):
            return
        named: set[str] = set()
        if contract is not None:
            named |= {file.path for day in contract.days for file in (*day.files, *filter(None, [day.examples]))}
            named |= {vocabulary.path for vocabulary in contract.vocabularies}
        root = _plain(self._storage.qualified(self._folder)) + "/"
        for info in list(self._storage.files(self._folder)):
            relative = _plain(info.path).removeprefix(root)
            if OURS.fullmatch(relative) and relative not in named:
                self._storage.remove(info.path)


def by_day(values: Mapping[dt.date, int]) -> Column:
    """The value of the row's ``day``."""
    return F.element_at(F.create_map(*[F.lit(part) for item in values.items() for part in item]), F.col("day"))


def _plain(path: str) -> str:
    """A local path without the scheme, which Spark's readers and Hadoop each write differently."""
    return re.sub("^file:/+", "/", path)
