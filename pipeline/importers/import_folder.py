"""An import's folder is there whole or not at all, and says what it was made of."""

from __future__ import annotations

import datetime as dt
import posixpath
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pyspark.sql import SparkSession

from mian.fingerprint import package_fingerprint
from pipeline.importers.published_files import ImporterError
from pipeline.io.atomic_directory import AtomicDirectory
from pipeline.io.files import FileInfo

RECORD_FILE = "_import.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceFile(_Frozen):
    """A published file, as it was when it was imported."""

    name: str
    bytes: int
    modified: int
    """Milliseconds since 1970."""


class LogSummary(_Frozen):
    """What is in a log."""

    rows: int
    first: dt.date | None = None
    """The first day (UTC) of a log of events."""
    last: dt.date | None = None
    empty_days: tuple[dt.date, ...] = ()
    """Days between them without a row: a configuration names those in its splits under ``log.empty_days``."""

    def text(self) -> str:
        """The record of an import, for a terminal."""
        if self.first is None or self.last is None:
            return f"{self.rows:,} rows"
        days = (self.last - self.first).days + 1
        empty = f", {len(self.empty_days):,} of the {days:,} days empty" if self.empty_days else f", {days:,} days"
        named = f" ({', '.join(map(str, self.empty_days))})" if 0 < len(self.empty_days) <= 5 else ""
        return f"{self.rows:,} rows from {self.first} to {self.last}{empty}{named}"


class ImportRecord(_Frozen):
    """``_import.json``: what the logs beside it were made of, and what is in them."""

    format: Literal["mian-imported-logs"] = "mian-imported-logs"
    version: Literal[1] = 1
    dataset: str
    files: tuple[SourceFile, ...]
    code: str
    """SHA-256 of the importers' source."""
    published_rows: dict[str, int] = {}
    """The rows of each published table."""
    logs: dict[str, LogSummary] = {}

    def differences(self, wanted: ImportRecord) -> list[str]:
        """Why the logs are not those that are wanted; empty where they are."""
        if self.dataset != wanted.dataset:
            return [f"it is of {self.dataset}"]
        now = {file.name: file for file in wanted.files}
        was = {file.name: file for file in self.files}
        changed = [f"{name} has changed since" for name in sorted(now.keys() | was.keys()) if now.get(name) != was.get(name)]
        return changed + ["the importer's code has changed since"] * (self.code != wanted.code)

    def table(self) -> str:
        """The record for people, a line a table."""
        read = [f"  read     {name:<44}{rows:,} rows" for name, rows in self.published_rows.items()]
        return "\n".join(read + [f"  written  {name:<44}{log.text()}" for name, log in self.logs.items()])


def record_of(dataset: str, files: Sequence[FileInfo]) -> ImportRecord:
    """What an import of these files would be made of."""
    sources = [SourceFile(name=posixpath.basename(f.path), bytes=f.size, modified=f.modified) for f in files]
    return ImportRecord(dataset=dataset, files=tuple(sources), code=package_fingerprint("pipeline.importers"))


class ImportFolder(AtomicDirectory):
    """The folder that an import's logs go to.

    Args:
        spark: the session that says how paths are reached.
        output: the folder.
    """

    def __init__(self, spark: SparkSession, output: str) -> None:
        super().__init__(spark, output, RECORD_FILE)

    def finished(self, wanted: ImportRecord, *, overwrite: bool) -> ImportRecord | None:
        """The record of the import that is there, if it is the one that is wanted; None if one may be written.

        Raises:
            ImporterError: something else is there that must not be replaced.
        """
        if not self.exists:
            return None
        text = self.read()
        if text is None:
            raise ImporterError(f"{self.output} is there and holds no import; choose another --output or remove it")
        try:
            record = ImportRecord.model_validate_json(text)
        except ValidationError as error:
            if overwrite:
                return None
            raise ImporterError(f"{self.record} cannot be read; --overwrite replaces the logs") from error
        differences = record.differences(wanted)
        if not differences:
            return record
        if overwrite:
            return None
        raise ImporterError(
            f"{self.output} holds another import ({', '.join(differences)}); --overwrite replaces it, another --output keeps both"
        )
