"""A world's folder is there whole or not at all, and says what made it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pyspark.sql import SparkSession

from mian.contract.document import fingerprint
from mian.fingerprint import package_fingerprint
from pipeline.config.simulation import CATEGORIES, SimulateConfig
from pipeline.io.atomic_directory import AtomicDirectory
from pipeline.simulate.summary import Summary

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
    sizes = {"users": config.user_count, "items": config.item_count, "brands": config.brand_count, "categories": CATEGORIES}
    return WorldRecord(
        config=config.model_dump(mode="json", exclude={"output"}) | sizes,
        code=package_fingerprint("pipeline.simulate"),
        summary=summary,
    )


class WorldFolder(AtomicDirectory):
    """The folder that a world's logs go to.

    Args:
        spark: the session that says how paths are reached.
        output: the folder.
    """

    def __init__(self, spark: SparkSession, output: str) -> None:
        super().__init__(spark, output, RECORD_FILE)

    def finished(self, config: SimulateConfig, *, overwrite: bool) -> WorldRecord | None:
        """The record of the world that is there, if it is the one that is asked for; None if one may be written.

        Raises:
            SimulateError: something else is there that must not be replaced.
        """
        if not self.exists:
            return None
        text = self.read()
        if text is None:
            raise SimulateError(f"{self.output} is there and is no simulated world; choose another output or remove it")
        try:
            record = WorldRecord.model_validate_json(text)
        except ValidationError as error:
            if overwrite:
                return None
            raise SimulateError(f"{self.record} cannot be read; --overwrite replaces the logs") from error
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
        raise SimulateError(f"{self.output} holds another world ({what}); --overwrite replaces it, another output keeps both")
