"""Writing finished days so that nobody ever sees half of one.

Files are written to a staging folder, checked, renamed to names that no other content has, and become part of the data set when the
contract that names them replaces the one before. What no contract names is removed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from pipeline.contract import CONTRACT_FILE, Contract, ContractError, SampleFile
from pipeline.encode import EXAMPLES, FACTS, PART, QUARANTINE
from pipeline.lock import this_process
from pipeline.parquet_files import write_files
from pipeline.statistics import Counts
from pipeline.storage import Storage, plain

STAGING = "_staging"
#: The files that a build writes, relative to the data set's folder.
OURS = re.compile(
    r"day=[0-9-]+/(part|examples|quarantine|statistics)-[0-9a-f-]+\.(parquet|json)|vocabularies/[0-9a-z-]+/[^/]+\.parquet"
    r"|([^/]+/)*[^/]+\.tmp"
)


@dataclass
class WrittenDay:
    """The files of a day, in place but not published, and what they hold."""

    files: list[SampleFile] = field(default_factory=list)
    examples: SampleFile | None = None
    quarantine: SampleFile | None = None
    counts: list[Counts] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)


class Publisher:
    """Writes into one data set's folder.

    Args:
        spark: the session.
        folder: the data set.
    """

    def __init__(self, spark: SparkSession, folder: str) -> None:
        self._spark = spark
        self.storage = Storage(spark)
        self._folder = folder.rstrip("/")
        self._staging = f"{self._folder}/{STAGING}/{this_process()}"

    def contract(self) -> Contract | None:
        """The published contract, if there is one.

        Raises:
            ContractError: it cannot be read.
        """
        path = f"{self._folder}/{CONTRACT_FILE}"
        return Contract.from_json(self.storage.read_text(path), path) if self.storage.exists(path) else None

    def write_files(self, files: DataFrame, fingerprints: Mapping[dt.date, str]) -> dict[dt.date, WrittenDay]:
        """Write files and bring them to their places; none of them is published.

        Args:
            files: see :func:`pipeline.encode.encode_files`.
            fingerprints: of the days; part of the files' names.
        """
        self.storage.remove(self._staging)
        write_files(files, self._staging)
        days: dict[dt.date, WrittenDay] = defaultdict(WrittenDay)
        rows: dict[tuple[str, dt.date, int], int] = {}
        facts = self._spark.read.schema(_PLACED + ", facts string").parquet(f"{self._staging}/kind={FACTS}")
        for row in facts.collect():
            found = json.loads(row["facts"])
            rows |= {(kind, row["day"], row["file"]): n for kind, n in found.pop("files").items()}
            if "rejected" in found:
                days[row["day"]].rejected |= found["rejected"]
            else:
                days[row["day"]].counts.append(found)
        sums = self._spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(self._staging)
        for path, size, sha256 in sorted(sums.selectExpr("path", "length", "sha2(content, 256)").collect()):
            place = _PLACE.search(path)
            assert place is not None
            kind, day, file = place[1], dt.date.fromisoformat(place[2]), int(place[3])
            if kind == FACTS:
                continue
            name = f"day={day}/{kind}-{max(file, 0):05d}-{fingerprints[day][:12]}.parquet"
            written = SampleFile(path=name, rows=rows.pop((kind, day, file)), bytes=size, sha256=sha256)
            if kind == PART:
                days[day].files.append(written)
            elif kind == EXAMPLES:
                days[day].examples = written
            elif kind == QUARANTINE:
                days[day].quarantine = written
            self.storage.replace(path, f"{self._folder}/{name}")
        if rows:
            lost = ", ".join(f"{kind} {file} of {day}" for kind, day, file in sorted(rows))
            raise ContractError(f"{self._staging}: {lost} was written and is not there; is the file system whole? Build again")
        self.storage.remove(self._staging)
        for written_day in days.values():
            written_day.files.sort(key=lambda file: file.path)
        return dict(days)

    def write(self, path: str, content: bytes, rows: int) -> SampleFile:
        """Write a small file, its path relative to the data set."""
        self.storage.write(f"{self._folder}/{path}", content)
        return SampleFile(path=path, rows=rows, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def read(self, path: str) -> bytes:
        """Read a small file."""
        return self.storage.read_bytes(f"{self._folder}/{path}")

    def publish(self, contract: Contract) -> None:
        """Make a contract the data set's, then remove what it does not name."""
        self.storage.write(f"{self._folder}/{CONTRACT_FILE}", contract.to_json().encode())
        self.clean(contract)

    def clean(self, contract: Contract | None) -> None:
        """Remove what builds that were stopped half-way left, and what the contract no longer names; nothing that is not ours."""
        self.storage.remove(f"{self._folder}/{STAGING}")
        if not self.storage.exists(self._folder):
            return
        named: set[str] = set()
        if contract is not None:
            named |= {file.path for day in contract.days for file in day.named_files}
            named |= {vocabulary.path for vocabulary in contract.vocabularies if vocabulary.path is not None}
        root = plain(self.storage.qualified(self._folder)) + "/"
        folders = set()
        for path in self._files():
            relative = plain(path).removeprefix(root)
            if OURS.fullmatch(relative) and relative not in named:
                self.storage.remove(path)
                folders.add(path.rpartition("/")[0])
        for folder in folders:
            self.storage.remove_empty(folder)

    def _files(self) -> Iterator[str]:
        """The paths where files of a build can lie."""
        for path in self.storage.children(self._folder):
            name = path.rpartition("/")[2]
            if name.startswith("day="):
                yield from self.storage.children(path)
            elif name == "vocabularies":
                for version in self.storage.children(path):
                    yield from self.storage.children(version)
            else:
                yield path


_PLACED = "day date, file int"
_PLACE = re.compile(r"/kind=([a-z]+)/day=([0-9-]+)/file=(-?\d+)/")
