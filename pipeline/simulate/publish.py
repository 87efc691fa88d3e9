"""A world's folder is there whole or not at all, and says what made it."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pyspark.sql import SparkSession

from pipeline.contract.document import fingerprint
from pipeline.simulate.config import SimulateConfig
from pipeline.simulate.summary import Summary
from pipeline.storage import Storage

RECORD_FILE = "_world.json"


class SimulateError(ValueError):
    """The logs cannot be written there: what lies in the way, and what to do."""


class WorldRecord(BaseModel):
    """``_world.json``: what made the logs beside it, and what is known of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["mian-simulated-world"] = "mian-simulated-world"
    version: Literal[1] = 1
    config: dict[str, Any]
    """The configuration without its ``output``, defaults filled in."""
    code: str
    """SHA-256 of the simulator's source."""
    summary: Summary

    @property
    def fingerprint(self) -> str:
        """The same for two worlds that have the same rows."""
        return fingerprint({"config": self.config, "code": self.code})


def record_of(config: SimulateConfig, summary: Summary) -> WorldRecord:
    """What a finished world says of itself."""
    sizes = {"users": config.user_count, "items": config.item_count, "brands": config.brand_count}
    return WorldRecord(
        config=config.model_dump(mode="json", exclude={"output"}) | sizes, code=code_fingerprint(), summary=summary
    )


def code_fingerprint() -> str:
    """SHA-256 over this package's source files, their names included."""
    digest = hashlib.sha256()
    for file in sorted(resources.files("pipeline.simulate").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".py"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


class WorldFolder:
    """The folder that a world's logs go to.

    Args:
        spark: the session that says how paths are reached.
        output: the folder.
    """

    def __init__(self, spark: SparkSession, output: str) -> None:
        self._storage = Storage(spark)
        self._output = output.rstrip("/")
        self._replaced = f"{self._output}.replaced"
        self.staging = f"{self._output}.partial"

    def finished(self, config: SimulateConfig, *, overwrite: bool) -> WorldRecord | None:
        """The record of the world that is there, if it is the one that is asked for; None if one may be written.

        Raises:
            SimulateError: something else is there that must not be replaced.
        """
        if not self._storage.exists(self._output):
            return None
        path = f"{self._output}/{RECORD_FILE}"
        if not self._storage.exists(path):
            raise SimulateError(f"{self._output} is there and is no simulated world; choose another output or remove it")
        try:
            record = WorldRecord.model_validate_json(self._storage.read_text(path))
        except ValidationError as error:
            if overwrite:
                return None
            raise SimulateError(f"{path} cannot be read; --overwrite replaces the logs") from error
        wanted = record_of(config, record.summary)
        if record.fingerprint == wanted.fingerprint:
            return record
        if overwrite:
            return None
        changed = [
            f"{key} {record.config.get(key)} is now {value}"
            for key, value in wanted.config.items()
            if record.config.get(key) != value
        ]
        what = ", ".join(changed) or "the simulator's code has changed"
        raise SimulateError(f"{self._output} holds another world ({what}); --overwrite replaces it, another output keeps both")

    def begin(self) -> None:
        """Remove what a run that was stopped half-way left."""
        self._storage.remove(self.staging)

    def publish(self, record: WorldRecord) -> None:
        """Put the finished logs in place of those that are there, if any."""
        self._storage.write(f"{self.staging}/{RECORD_FILE}", record.model_dump_json(indent=2).encode() + b"\n")
        self._storage.remove(self._replaced)
        if self._storage.exists(self._output):
            self._storage.replace(self._output, self._replaced)
        self._storage.replace(self.staging, self._output)
        self._storage.remove(self._replaced)
