"""The contract document: one small JSON file that says what a sample is, and which files hold them.

Its parts lie together in one file, longer than others, because a reader of the JSON wants all of them at once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

FORMAT = "mian-samples"
VERSION = 3
#: Versions that this release reads: what later ones added has a default.
READABLE = (1, 2, 3)
CONTRACT_FILE = "contract.json"

Group = Literal["candidate", "behaviors", "user", "context"]
GROUPS: tuple[Group, ...] = ("candidate", "behaviors", "user", "context")

#: Columns that every sample has beside its fields.
ID_COLUMN = "impression_id"  # string: the impression's id in the log
USER_COLUMN = "user_key"  # int64: hash of the raw user id; groups rows for gAUC, is never a feature
TIME_COLUMN = "time"  # int64: the impression's event time, microseconds since 1970-01-01 UTC
LABEL_COLUMN = "label"  # int32: 0 or 1
LENGTH_COLUMN = "behavior_length"  # int32: how many entries of the behavior columns are real


class ContractError(ValueError):
    """The contract is missing, is not a contract, or says something else than what was asked of it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NumericTransform(_Strict):
    """``(f(x) - mean) / std`` with f the identity or ``sign(x) * log(1 + |x|)``; fitted on training days.

    A null becomes 0. The result is cut to between -10^6 and 10^6.
    """

    kind: Literal["identity", "log"]
    mean: float
    std: float


class Field(_Strict):
    """One field of one group (Zhang et al. 2021, Eq. 1): categorical ids of a vocabulary, or a transformed number."""

    group: Group
    name: str
    vocabulary: str | None = None
    transform: NumericTransform | None = None
    kind: Literal["value", "number", "time_gap"] = "value"
    """What becomes an id: a value as text, a number that falls into a bucket, or the seconds from a behavior to the impression."""

    @property
    def is_categorical(self) -> bool:
        """Whether the column holds int32 ids (else float32 numbers)."""
        return self.vocabulary is not None

    @property
    def is_text(self) -> bool:
        """Whether raw values are text (else numbers)."""
        return self.vocabulary is not None and self.kind == "value"

    @property
    def column(self) -> str:
        """The name of the field's column in the samples: ``candidate_price``, ``behavior_item_id``, ``user_age``."""
        return f"{'behavior' if self.group == 'behaviors' else self.group}_{self.name}"


class Vocabulary(_Strict):
    """How raw values become ids; 0 is padding and 1 is unknown or missing, whatever the kind.

    ``table``: the i-th row of the file is id ``i + 2``. ``hash``: the id is ``2 + h mod (size - 2)``, h the first eight bytes of the
    value's BLAKE2b hash as a little-endian number. ``buckets``: the id of a number is 2 plus the number of ``edges`` that are not
    greater.
    """

    name: str
    size: int
    """Number of ids, padding and unknown included: the number of rows of an embedding table."""
    kind: Literal["table", "hash", "buckets"] = "table"
    path: str | None = None
    """Of a table: Parquet file relative to the contract, columns ``value`` (string) and ``count`` (int64)."""
    sha256: str | None = None
    bytes: int | None = None
    """Of a table's file; None in documents before version 3."""
    edges: tuple[float, ...] | None = None
    """Of buckets: in rising order."""


class History(_Strict):
    """Behavior columns hold ``length`` entries, the most recent first, padded at the end; none older than ``days`` days.

    They happened, and had arrived, before the cutoff: the impression or the end of the day before it, less the lag.
    """

    length: int
    days: int
    cutoff: Literal["impression", "previous_day"] = "impression"
    lag_hours: float = 0.0
    recorded: Literal["dated", "undated"] | None = None
    """Whether behaviors are those that the log recorded with each impression, with their times or without; else they were joined."""


class Label(_Strict):
    """What label 1 means: ``kind`` is the log kind; a click counts within ``attribution_hours`` of its impression."""

    kind: Literal["impressions_and_clicks", "labeled", "positives_only"]
    attribution_hours: float | None = None
    attribution_by: Literal["impression_id", "user_and_item"] | None = None
    negatives_per_positive: int | None = None


class Split(_Strict):
    """Days ``first`` to ``last``, both included."""

    first: dt.date
    last: dt.date

    def __contains__(self, day: dt.date) -> bool:
        return self.first <= day <= self.last


class SampleFile(_Strict):
    """One Parquet file of one row group, its path relative to the contract."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Matched(_Strict):
    """How many rows there were, and how many of them found their partner."""

    rows: int
    found: int


class Quality(_Strict):
    """What was found out about a day while it was built."""

    log_rows: int
    """Rows of the impression log on this day, before anything was left out."""
    quarantined: dict[str, int]
    """Rows that broke a rule, by log and rule: ``log.impressions: user_id is null``. The quarantine file holds them."""
    clicks: int | None = None
    """Rows of the click log on this day, where labels come from clicks."""
    early_clicks: int | None = None
    """Clicks that have no impression at or before them, but a later one."""
    matched: dict[str, Matched] = {}
    """By source: ``clicks`` that have an impression at or before them, impressions that ``items`` and ``users`` have a row of, behaviors
    that ``items`` has a row of (``behaviors``), impressions that a lookup has a row of (``lookups.0``). A row of any time counts."""
    undrawn: int | None = None
    """Negatives that were asked for and could not be drawn, where negatives are drawn. The quarantine file names each."""
    unknown: dict[str, float]
    """By column the share of unknown ids, or of missing numbers. Earlier releases counted ids alone."""
    drift: dict[str, float]
    """Population stability index a column, of this day against the training days that the vocabularies were made from."""
    clipped: dict[str, int] = {}
    """Numbers that were cut, by column, where there are any: infinities and what is beyond all that the training days let expect."""


class Reference(_Strict):
    """How a column's values were spread over the training days: what drift is measured against.

    Bins of a categorical column: unknown, the ids from 2 on (as many as there are shares, less two), and all others. Of a numeric
    column: those between ``edges``.
    """

    shares: tuple[float, ...]
    edges: tuple[float, ...] | None = None


class Day(_Strict):
    """A finished day. ``fingerprint`` covers its configuration, code, vocabularies and input files, ``inputs`` the last alone."""

    day: dt.date
    rows: int
    positives: int
    fingerprint: str
    inputs: str = ""
    input_days: dict[str, tuple[Split, ...]] = {}
    """By source the days whose files the samples were made from, where its files lie in folders of days."""
    files: tuple[SampleFile, ...]
    examples: SampleFile | None = None
    """Some rows of the day as raw values, before encoding; they show what serving is given."""
    statistics: SampleFile | None = None
    """A JSON document of counts, see ``docs/reference/contract.md``; one row."""
    quarantine: SampleFile | None = None
    """The rows that broke a rule, with the reason."""
    quality: Quality | None = None
    vocabulary_version: int = 1
    negatives_kept: float = 1.0
    """The share of impressions with label 0 that became samples."""
    final: bool = True
    """Whether the attribution window of its last impression was over, so that no label can change any more."""

    @property
    def named_files(self) -> tuple[SampleFile, ...]:
        """All files of the day."""
        others = (self.examples, self.statistics, self.quarantine)
        return (*self.files, *(file for file in others if file is not None))


class Publication(_Strict):
    """Which publication of a data set a contract is. All three are 0 where it was never published, or by a release before version 3."""

    generation: int = 0
    """Samples of one generation share vocabularies and the configuration that decides what a sample is."""
    revision: int = 0
    """One more with each publication in a folder, whatever its generation."""
    fencing_token: int = 0
    """The number of the lock that the publisher held; see :class:`pipeline.dataset.lock.DatasetLock`."""


class Contract(_Strict):
    """What a sample is and where the samples are; see :func:`read_contract`."""

    format: Literal["mian-samples"] = "mian-samples"
    version: Literal[1, 2, 3] = 3
    name: str
    fields: tuple[Field, ...]
    vocabularies: tuple[Vocabulary, ...]
    vocabulary_fingerprint: str
    """Of what the vocabularies and transforms were made with: configuration and ``samples_version``. Another one is another generation."""
    vocabulary_version: int = 1
    """One more each time the vocabularies were extended; ids never move."""
    vocabulary_days: tuple[Split, ...] = ()
    """The training days that the vocabularies and transforms were made from, in order, without overlap."""
    reference: dict[str, Reference] = {}
    history: History
    label: Label
    splits: dict[str, Split]
    day_time_zone: str = "UTC"
    """Whose calendar days and splits are of: a name of the IANA database."""
    config_fingerprint: str
    settings: dict[str, str] = {}
    """The fingerprint of each part of the configuration that decides what a sample is: they say what changed."""
    samples_version: int = 0
    """The version of the code's rules for samples, set by hand; 0 in documents before version 3."""
    code_fingerprint: str
    """Of the source code of the last build, for the record; it decides nothing."""
    publication: Publication = Publication()
    days: tuple[Day, ...]

    @field_validator("vocabulary_days", mode="before")
    @classmethod
    def _one_span(cls, value: Any) -> Any:
        """Documents before version 3 have one span, or null."""
        if value is None:
            return ()
        return (value,) if isinstance(value, (dict, Split)) else value

    @property
    def named_files(self) -> dict[str, int | None]:
        """All files that the contract names, by path, and their sizes in bytes; None where the document does not say."""
        files: dict[str, int | None] = {file.path: file.bytes for day in self.days for file in day.named_files}
        return files | {v.path: v.bytes for v in self.vocabularies if v.path is not None}

    def group(self, group: Group) -> tuple[Field, ...]:
        """The fields of a group, in order."""
        return tuple(field for field in self.fields if field.group == group)

    def vocabulary(self, name: str) -> Vocabulary:
        """The vocabulary of that name.

        Raises:
            KeyError: there is none.
        """
        for vocabulary in self.vocabularies:
            if vocabulary.name == name:
                return vocabulary
        raise KeyError(name)

    def split(self, name: str) -> tuple[Day, ...]:
        """The finished days of a split, in order of time.

        Raises:
            ContractError: no such split, or none of its days is built.
        """
        if name not in self.splits:
            raise ContractError(f"contract {self.name!r} has no split {name!r}; it has {', '.join(sorted(self.splits))}")
        span = self.splits[name]
        days = tuple(sorted((day for day in self.days if day.day in span), key=lambda day: day.day))
        if not days:
            raise ContractError(
                f"contract {self.name!r}: no day of split {name!r} ({span.first} to {span.last}) is built; "
                f"run jobs/build_samples.py with --from {span.first} --to {span.last}"
            )
        return days

    def missing_days(self, name: str) -> tuple[dt.date, ...]:
        """Days of a split that are not built."""
        built = {day.day for day in self.split(name)}
        span = self.splits[name]
        wanted = (span.first + dt.timedelta(days=i) for i in range((span.last - span.first).days + 1))
        return tuple(day for day in wanted if day not in built)

    @property
    def fields_fingerprint(self) -> str:
        """Of what a model's weights depend on: fields, order, transforms, the vocabularies' contents."""
        return fingerprint({"fields": [f.model_dump() for f in self.fields], "vocabularies": self._vocabulary_contents()})

    def _vocabulary_contents(self) -> dict[str, str]:
        return {v.name: v.sha256 or fingerprint(v.model_dump(exclude={"name", "bytes"})) for v in self.vocabularies}

    def negatives_kept(self, name: str) -> float:
        """The share of a split's negatives that became samples.

        Raises:
            ContractError: no such split, or its days were thinned differently.
        """
        kept = {day.negatives_kept for day in self.split(name)}
        if len(kept) > 1:
            raise ContractError(
                f"contract {self.name!r}: days of split {name!r} kept different shares of negatives ({sorted(kept)}); "
                "build them anew with one sampling.negatives"
            )
        return kept.pop()

    def check_unthinned(self, name: str) -> None:
        """Refuse a split that metrics would be taken on while negatives are missing: logloss, gAUC and calibration would be of other rows.

        Raises:
            ContractError: no such split, or negatives of one of its days were thinned.
        """
        thinned = [day for day in self.split(name) if day.negatives_kept < 1]
        if thinned:
            raise ContractError(
                f"contract {self.name!r}: split {name!r} cannot be scored: {thinned[0].day} kept {thinned[0].negatives_kept:g} of its "
                f"negatives ({len(thinned)} such days); leave the split out of sampling.splits and build it anew"
            )

    def differences(self, other: Contract) -> Iterator[str]:
        """How ``other`` differs in what a model's weights depend on, one sentence each; nothing where they agree."""
        mine = {field.column: field for field in self.fields}
        other_fields = {field.column: field for field in other.fields}
        yield from (f"field {column} is missing" for column in mine if column not in other_fields)
        yield from (f"field {column} is new" for column in other_fields if column not in mine)
        shared = [column for column in mine if column in other_fields]
        yield from (
            f"field {column} is of another kind or transform" for column in shared if mine[column] != other_fields[column]
        )
        if set(mine) == set(other_fields) and list(mine) != list(other_fields):
            yield "fields are in another order"
        others = other._vocabulary_contents()
        yield from (
            f"vocabulary {name} has other contents"
            for name, sha256 in self._vocabulary_contents().items()
            if name in others and others[name] != sha256
        )

    def to_json(self) -> str:
        """The document, the same text for the same contract."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "contract") -> Contract:
        """Read a document.

        Args:
            text: the JSON text.
            where: its path, for errors.

        Raises:
            ContractError: not JSON, not a contract, or of another version.
        """
        try:
            document: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ContractError(f"{where}: not a JSON document ({error}); build the samples again") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ContractError(f"{where}: not a {FORMAT} contract; give the folder that jobs/build_samples.py wrote")
        if document.get("version") not in READABLE:
            raise ContractError(
                f"{where}: contract of version {document.get('version')!r}, this release reads versions {READABLE[0]} to {VERSION}; "
                "build the samples again with this release, or use the release that wrote them"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ContractError(f"{where}: damaged contract at {place!r}: {first['msg']}; build the samples again") from error


def fingerprint(value: Any) -> str:
    """SHA-256, hexadecimal, of a JSON-like value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str, separators=(",", ":")).encode()).hexdigest()


def read_contract(samples: str) -> Contract:
    """Read the contract of a sample data set.

    Args:
        samples: the data set's folder; a local path or any URL that fsspec opens.

    Raises:
        ContractError: there is none, or it is not one of this version.
    """
    path = f"{samples.rstrip('/')}/{CONTRACT_FILE}"
    try:
        with fsspec.open(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise ContractError(
            f"{path}: no such file; run jobs/build_samples.py first, or correct the path of the samples"
        ) from error
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not UTF-8 text ({error}); it is damaged: build the samples again") from error
    except Exception as error:  # clients of object stores have errors of their own, and no class in common
        raise ContractError(f"{path}: cannot be opened: {error}; correct the path of the samples") from error
    return Contract.from_json(text, path)
