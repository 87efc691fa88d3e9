"""The verdict of an audit on a finished day, as it lies beside the samples."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Literal

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError

from mian.contract.document import ContractError

AUDITS = "_audits"
"""Folder of verdicts within a data set, a file for each day that was audited and its fingerprint."""

AuditState = Literal["clean", "findings", "not audited"]


class AuditVerdict(BaseModel):
    """What ``jobs/audit_samples.py`` found on a day of samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-audit"] = "mian-audit"
    version: Literal[1] = 1
    day: dt.date
    fingerprint: str
    """Of the day that was audited; a day that was built again has another one, and is not audited then."""
    findings: dict[str, int] = {}
    """How many findings of each kind concern the day; those that are of no day concern every day."""
    rules: str
    """Fingerprint of the configuration that the day was held against."""
    audited: dt.datetime
    """When the audit ended, UTC."""

    @property
    def state(self) -> AuditState:
        """``clean``: nothing was found."""
        return "findings" if self.findings else "clean"


def verdict_path(day: dt.date, fingerprint: str) -> str:
    """Where the verdict on a day lies, relative to the data set."""
    return f"{AUDITS}/{day}.{fingerprint[:16]}.json"


def read_verdict(samples: str, day: dt.date, fingerprint: str) -> AuditVerdict | None:
    """Read the verdict on a day of a data set.

    Args:
        samples: the data set's folder; a local path or any URL that fsspec opens.
        day: the day.
        fingerprint: of the day, as the contract has it.

    Returns:
        The verdict of the last audit of this very day; None where it was not audited since it was built.

    Raises:
        ContractError: the file is damaged.
    """
    path = f"{samples.rstrip('/')}/{verdict_path(day, fingerprint)}"
    try:
        with fsspec.open(path, "rb") as file:
            verdict = AuditVerdict.model_validate_json(file.read())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ContractError(f"{path}: damaged; audit the samples again (jobs/audit_samples.py)") from error
    return verdict if verdict.fingerprint == fingerprint else None


def audit_state(samples: str, day: dt.date, fingerprint: str) -> AuditState:
    """The verdict on a day in one word; see :func:`read_verdict`."""
    verdict = read_verdict(samples, day, fingerprint)
    return "not audited" if verdict is None else verdict.state


def worst(states: Iterable[AuditState]) -> AuditState:
    """``findings`` where any is that, else ``not audited`` where any is that, else ``clean``."""
    found = set(states)
    order: tuple[AuditState, ...] = ("findings", "not audited")
    return next((state for state in order if state in found), "clean")
