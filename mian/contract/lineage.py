"""What a model was made from: its days, and those of the models that it began with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mian.contract.audit_verdict import AuditState, audit_state, worst
from mian.contract.document import Contract, Split


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UsedDay(_Strict):
    """A day of samples that decided something of a model."""

    day: dt.date
    fingerprint: str
    """Of the day's samples, see :class:`mian.contract.Day`."""
    use: Literal["train", "validation"]
    """``validation``: it decided which weights are best, when training ended, and the calibration."""
    audit: AuditState
    """What was known of the day when the training began."""

    def audit_now(self, samples: str) -> AuditState:
        """What is known of the day now, from verdicts beside samples; it may have been audited since the training began.

        Raises:
            ContractError: a verdict is damaged.
        """
        found = audit_state(samples, self.day, self.fingerprint)
        return self.audit if found == "not audited" else found


class Parent(_Strict):
    """The model that a training began with."""

    source: str
    """Its version in the registry, ``mian/3``, or its folder."""
    weights_sha256: str = ""
    """Of its file of weights, where it says."""
    seen: tuple[Split, ...] | None
    """See :class:`Lineage`; None where the model does not say."""
    audit: AuditState = "not audited"
    """The worst verdict on the days of the model and of those that it began with, when the training began."""
    days: tuple[UsedDay, ...] | None = None
    """The days of the model and of those that it began with; None where one of them does not say."""

    def audit_now(self, samples: str) -> AuditState:
        """The worst verdict that lies beside samples now; the one that is noted where days are not.

        Raises:
            ContractError: a verdict is damaged.
        """
        return self.audit if self.days is None else worst(day.audit_now(samples) for day in self.days)


class Lineage(_Strict):
    """What a model was made from, as ``model.json`` holds it."""

    samples: str
    """The folder of the samples."""
    contract: str
    """Their name."""
    generation: int
    vocabulary_version: int
    fields_fingerprint: str
    config_fingerprint: str
    """Of the configuration of the samples."""
    code_fingerprint: str
    """Of the source code of ``mian`` that trained the model."""
    days: tuple[UsedDay, ...]
    """In order of time."""
    parent: Parent | None = None
    seen: tuple[Split, ...] | None
    """All days that the model or one of its ancestors was trained on, chosen by or calibrated on, and those that its vocabularies and
    transforms were made from; in order, without overlap. None where an ancestor does not say."""

    @property
    def last_seen(self) -> dt.date | None:
        """The last of the days that are seen; None where they are not known."""
        return self.seen[-1].last if self.seen else None

    @property
    def days_with_ancestors(self) -> tuple[UsedDay, ...] | None:
        """The days of the model and of those that it began with; None where one of them does not say."""
        if self.parent is None:
            return self.days
        return None if self.parent.days is None else (*self.parent.days, *self.days)

    @property
    def audit(self) -> AuditState:
        """The worst verdict on the days of the model and of those that it began with, when each training began."""
        return worst([*(day.audit for day in self.days), *([] if self.parent is None else [self.parent.audit])])

    def audit_now(self, samples: str) -> AuditState:
        """The same with the verdicts that lie beside samples now; see :meth:`UsedDay.audit_now`."""
        inherited = [] if self.parent is None else [self.parent.audit_now(samples)]
        return worst([*(day.audit_now(samples) for day in self.days), *inherited])

    def begun_with(self, parent: Parent) -> Lineage:
        """The lineage of a model that began with another one: its days are seen, too."""
        seen = None if self.seen is None or parent.seen is None else merged([*self.seen, *parent.seen])
        return self.model_copy(update={"parent": parent, "seen": seen})


def lineage_of(contract: Contract, samples: str, train: str, validation: str, code: str) -> Lineage:
    """Describe what a training is about to use.

    Args:
        contract: of the samples.
        samples: their folder; verdicts of audits are read there.
        train: the split that is trained on.
        validation: the split that weights are chosen by.
        code: fingerprint of the source code.

    Raises:
        ContractError: a split is missing, or a verdict is damaged.
    """
    splits: tuple[tuple[Literal["train", "validation"], str], ...] = (("train", train), ("validation", validation))
    days = tuple(
        UsedDay(day=day.day, fingerprint=day.fingerprint, use=use, audit=audit_state(samples, day.day, day.fingerprint))
        for use, split in splits
        for day in contract.split(split)
    )
    own = [Split(first=day.day, last=day.day) for day in days]
    return Lineage(
        samples=samples,
        contract=contract.name,
        generation=contract.publication.generation,
        vocabulary_version=contract.vocabulary_version,
        fields_fingerprint=contract.fields_fingerprint,
        config_fingerprint=contract.config_fingerprint,
        code_fingerprint=code,
        days=tuple(sorted(days, key=lambda day: day.day)),
        seen=merged([*own, *contract.vocabulary_days]),
    )


def merged(spans: Iterable[Split]) -> tuple[Split, ...]:
    """The days of some spans as the fewest spans that have them, in order."""
    found: list[Split] = []
    for span in sorted(spans, key=lambda span: span.first):
        if found and span.first <= found[-1].last + dt.timedelta(days=1):
            found[-1] = Split(first=found[-1].first, last=max(found[-1].last, span.last))
        else:
            found.append(span)
    return tuple(found)
