"""The manifest of a folder of scores: which days it holds, by which models, and their files."""

from __future__ import annotations

import datetime as dt
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mian.contract import ContractError, SampleFile
from mian.contract.document import fingerprint

MANIFEST_FILE = "_manifest.json"

#: Raised by hand where the same candidates and the same model give other files.
SCORES_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoredBy(_Strict):
    """All that the scores of a day depend on."""

    model_version: str
    model: str
    """SHA-256 of the model's files."""
    settings: str
    """Fingerprint of the configuration, as far as it decides scores."""
    inputs: str
    """Fingerprint of the rows that the day is made from."""
    smallest_group: int
    """See :func:`pipeline.scoring.moments.score_moments`."""
    samples_version: int
    """The version of the rules that make samples from logs."""
    scores_version: int = SCORES_VERSION

    def difference(self, other: ScoredBy) -> str:
        """In what another one differs, in words; empty where it does not."""
        if self.model_version != other.model_version:
            return f"the model {other.model_version}, and now it is {self.model_version}"
        if self.model != other.model:
            return f"other files of the model {other.model_version}"
        if self.inputs != other.inputs:
            return "other rows of the candidates, or of the logs that their histories and attributes come from"
        if self.settings != other.settings:
            return "another configuration"
        return "other rules of an earlier release" if self != other else ""


class ScoredDay(_Strict):
    """A finished day; paths are relative to the manifest."""

    day: dt.date
    rows: int
    scored_by: ScoredBy
    scored_at: dt.datetime
    files: tuple[SampleFile, ...]
    quarantine: SampleFile | None = None
    """The rows that broke a rule, with the reason."""
    quarantined: dict[str, int] = {}
    """How many rows broke which rule."""

    @property
    def named_files(self) -> tuple[SampleFile, ...]:
        """All files of the day."""
        return self.files if self.quarantine is None else (*self.files, self.quarantine)


class Manifest(_Strict):
    """The document."""

    format: Literal["mian-scores"] = "mian-scores"
    version: Literal[1] = 1
    name: str
    """Of the data set."""
    days: tuple[ScoredDay, ...] = ()

    def day(self, day: dt.date) -> ScoredDay | None:
        """A finished day; None where it is not finished."""
        return next((found for found in self.days if found.day == day), None)

    def with_day(self, day: ScoredDay) -> Manifest:
        """The same with one day more, or with a day replaced; days stay in order."""
        days = {found.day: found for found in self.days} | {day.day: day}
        return self.model_copy(update={"days": tuple(days[key] for key in sorted(days))})

    def to_json(self) -> str:
        """The document, the same text for the same manifest."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Read a document.

        Raises:
            ContractError: it is none, or is damaged.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ContractError(
                f"{where}: no manifest of scores of this release, or damaged at {place!r}: {first['msg']}; restore it, or name another "
                "--output"
            ) from error


def run_identity(scored_by: dict[dt.date, ScoredBy]) -> str:
    """A name for a run: the same for the same days, candidates, configuration and model."""
    return fingerprint({str(day): by.model_dump(mode="json") for day, by in scored_by.items()})
