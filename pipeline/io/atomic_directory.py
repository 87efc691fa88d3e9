"""A folder that is there whole or not at all, with a record of what made it."""

from __future__ import annotations

from pyspark.sql import SparkSession

from pipeline.io.storage import Storage


class AtomicDirectory:
    """A folder of logs that a job makes.

    Args:
        spark: the session that says how paths are reached.
        output: the folder.
        record: the name of the file that says what made it.

    Attributes:
        output: the folder.
        staging: where its files are written first.
        record: the path of the record.
    """

    def __init__(self, spark: SparkSession, output: str, record: str) -> None:
        self._storage = Storage(spark)
        self._name = record
        self.output = output.rstrip("/")
        self.staging = f"{self.output}.partial"
        self.record = f"{self.output}/{record}"

    @property
    def exists(self) -> bool:
        """Whether the directory, or a file, is at the path."""
        return self._storage.exists(self.output)

    def read(self) -> str | None:
        """The record's text; None where there is no record."""
        return self._storage.read_text(self.record) if self._storage.exists(self.record) else None

    def clear(self) -> None:
        """Remove what an earlier process has left half-written."""
        self._storage.remove(self.staging)

    def publish(self, record: str) -> None:
        """Put the finished files in place of those that are there, if any."""
        replaced = f"{self.output}.replaced"
        self._storage.write(f"{self.staging}/{self._name}", record.encode())
        self._storage.remove(replaced)
        if self.exists:
            self._storage.replace(self.output, replaced)
        self._storage.replace(self.staging, self.output)
        self._storage.remove(replaced)
