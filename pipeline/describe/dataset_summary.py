"""The figures behind the page, as typed objects."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mian.contract import Contract, Day, Field, Split, read_contract
from mian.contract.encoder import FIRST_ID
from pipeline.describe.drift import Drift, column_drift
from pipeline.describe.sample_folder import DescribeError, Folder, IntArray, read_keys, read_statistics, read_values
from pipeline.encoding.statistics import NAMED_BINS, Counts, before_thinning, total, unknown_share

#: Names of the candidate's fields that stand in Table 1 as item and category, the most telling first.
_ITEM = (r"item_?id", r"(?:item|product|ad|video|movie|book)(?:_?id)?|asin")
_CATEGORY = (r"category(?:_?id)?", r"(?:\w+_)?(?:sub|main)?_?cat(?:e|egory|egories)?(?:_?id|_?name|_?\d)?|genres?")


@dataclass(frozen=True)
class DayFacts:
    """A finished day: what the contract says of it, the split it is in, and its counts where they are known."""

    day: Day
    split: str | None
    counts: Counts | None

    @property
    def rate(self) -> float | None:
        """The share of label 1 among the impressions, those that were left out as surplus negatives included."""
        return label_rate(self.day.positives, self.day.rows, self.day.negatives_kept)


class DayTotals:
    """Sums over the finished days of a split or of a data set."""

    days: tuple[DayFacts, ...]

    @property
    def rows(self) -> int:
        """The number of samples."""
        return sum(day.day.rows for day in self.days)

    @property
    def positives(self) -> int:
        """The number of samples with label 1."""
        return sum(day.day.positives for day in self.days)


@dataclass(frozen=True)
class SplitFacts(DayTotals):
    """The finished days of a split together."""

    name: str
    span: Split
    days: tuple[DayFacts, ...]
    counts: Counts | None
    """Of all its days; None where those of a day are not known."""
    users: int
    new_users: int
    """Users that no training day has."""

    @property
    def missing(self) -> tuple[dt.date, ...]:
        """Days of the span that are not built."""
        built = {day.day.day for day in self.days}
        number = (self.span.last - self.span.first).days + 1
        return tuple(day for day in (self.span.first + dt.timedelta(days=i) for i in range(number)) if day not in built)

    @property
    def kept(self) -> tuple[float, ...]:
        """The shares of negatives that its days kept, each once, rising."""
        return tuple(sorted({day.day.negatives_kept for day in self.days}))

    @property
    def rate(self) -> float | None:
        """The share of label 1 among the impressions of all its days; as in :attr:`DayFacts.rate`."""
        impressions = sum(d.day.positives + (d.day.rows - d.day.positives) / d.day.negatives_kept for d in self.days)
        return self.positives / impressions if impressions else None

    @property
    def seen(self) -> float | None:
        """The share of samples whose candidate item is in the history (Zhang et al. 2021, Figure 3 (a))."""
        return self.counts["seen"] / self.rows if self.counts is not None and self.rows else None

    @property
    def empty(self) -> float | None:
        """The share of samples without a single behavior."""
        return self.counts["history_length"][0] / self.rows if self.counts is not None and self.rows else None

    @property
    def full(self) -> float | None:
        """The share of samples with as many behaviors as the columns hold."""
        return self.counts["history_length"][-1] / self.rows if self.counts is not None and self.rows else None


@dataclass(frozen=True)
class ColumnFacts:
    """A column of the samples: its share of unknown ids, or of missing numbers, by split, and how far it drifts."""

    field: Field
    size: int | None
    unknown: Mapping[str, float]
    drift: Drift | None


@dataclass(frozen=True)
class Table1:
    """A row of Zhang et al. 2021, Table 1; None where there is no such field, or where hashed ids cannot tell."""

    users: int
    items: int | None
    categories: int | None
    samples: int


@dataclass(frozen=True)
class DatasetSummary(DayTotals):
    """All that the page shows."""

    contract: Contract
    samples: str
    days: tuple[DayFacts, ...]
    splits: tuple[SplitFacts, ...]
    columns: tuple[ColumnFacts, ...]
    table1: Table1
    candidates_seen: Mapping[str, int]
    """How many ids of a candidate's column occur in the samples, unknown and padding left out."""
    values: Mapping[str, Sequence[str]]
    """The first values of the vocabularies of users' and contexts' columns."""

    @property
    def unmeasured(self) -> tuple[DayFacts, ...]:
        """Days with samples but without statistics: an earlier release built them."""
        return tuple(day for day in self.days if day.counts is None and day.day.rows)

    @property
    def measured(self) -> tuple[DayFacts, ...]:
        """Days with statistics."""
        return tuple(day for day in self.days if day.counts is not None)

    @property
    def age_days(self) -> IntArray:
        """Behaviors of all samples by their age in whole days, shape ``(days,)``; empty where nothing is known."""
        return np.asarray(total(d.counts for d in self.days if d.counts is not None)["behavior_age_days"], np.int64)

    @property
    def held_out(self) -> tuple[SplitFacts, ...]:
        """The splits that are not trained on."""
        return tuple(split for split in self.splits if split.name != "train")


def describe(samples: str) -> DatasetSummary:
    """Read and sum up a data set.

    Args:
        samples: its folder; a local path or any URL that fsspec opens.

    Raises:
        ContractError: there is no contract, or it cannot be read.
        DescribeError: no day is finished, or a file that the contract names is missing or damaged.
    """
    contract = read_contract(samples)
    if not sum(day.rows for day in contract.days):
        raise DescribeError(f"{samples}: the contract has no day with samples; run jobs/build_samples.py first")
    folder = Folder(samples)
    built = sorted(contract.days, key=lambda day: day.day)
    days = tuple(
        DayFacts(day, _split_of(contract, day.day), counts)
        for day, counts in zip(built, read_statistics(folder, built), strict=True)
    )
    keys = {
        name: read_keys(folder, contract, [file for day in days if day.split == name for file in day.day.files])
        for name in (*contract.splits, None)
    }
    splits = _splits(contract, days, {name: key.users for name, key in keys.items() if name is not None})
    seen = {
        name: int(np.any([key.candidates[name] for key in keys.values()], axis=0)[FIRST_ID:].sum())
        for name in next(iter(keys.values())).candidates
    }
    users = len(np.unique(np.concatenate([key.users for key in keys.values()])))
    return DatasetSummary(
        contract=contract,
        samples=samples,
        days=days,
        splits=splits,
        columns=tuple(_column(contract, field, days, splits) for field in contract.fields),
        table1=Table1(users, _ids(contract, _ITEM), _ids(contract, _CATEGORY), sum(day.day.rows for day in days)),
        candidates_seen=seen,
        values=_values(folder, contract),
    )


def label_rate(positives: int, rows: int, kept: float) -> float | None:
    """The share of label 1 as it was before negatives were left out; None where there are no rows."""
    impressions = positives + (rows - positives) / kept
    return positives / impressions if impressions else None


def _split_of(contract: Contract, day: dt.date) -> str | None:
    return next((name for name, span in contract.splits.items() if day in span), None)


def _splits(contract: Contract, days: Sequence[DayFacts], users: Mapping[str, IntArray]) -> tuple[SplitFacts, ...]:
    facts = []
    for name, span in sorted(contract.splits.items(), key=lambda item: item[1].first):
        own = tuple(day for day in days if day.split == name)
        known = [day.counts for day in own if day.counts is not None]
        whole = known and all(day.counts is not None or not day.day.rows for day in own)
        new = int((~np.isin(users[name], users["train"])).sum()) if "train" in users else 0
        facts.append(SplitFacts(name, span, own, total(known) if whole else None, len(users[name]), new))
    return tuple(facts)


def _column(contract: Contract, field: Field, days: Sequence[DayFacts], splits: Sequence[SplitFacts]) -> ColumnFacts:
    measured = [split for split in splits if split.counts is not None and field.column in split.counts["columns"]]
    found = {s.name: unknown_share(s.counts, field) for s in measured if s.counts is not None}
    unknown = {name: share for name, share in found.items() if share is not None}
    reference = contract.reference.get(field.column)
    drift = None
    if reference is not None:
        counts = {
            split.name: [
                before_thinning(d.counts["columns"][field.column], d.day.negatives_kept)
                for d in split.days
                if d.counts is not None
            ]
            for split in measured
        }
        drift = column_drift(reference.shares, counts)
    size = contract.vocabulary(field.vocabulary).size if field.vocabulary is not None else None
    return ColumnFacts(field, size, unknown, drift)


def _ids(contract: Contract, patterns: Sequence[str]) -> int | None:
    """The number of ids of the candidate's first field whose name fits the first pattern that any fits."""
    for pattern in patterns:
        for field in contract.group("candidate"):
            if field.vocabulary is not None and re.fullmatch(pattern, field.name, re.IGNORECASE):
                vocabulary = contract.vocabulary(field.vocabulary)
                return vocabulary.size - FIRST_ID if vocabulary.kind == "table" else None
    return None


def _values(folder: Folder, contract: Contract) -> dict[str, list[str]]:
    names = {field.vocabulary for group in ("user", "context") for field in contract.fields if field.group == group}
    tables = [vocabulary for vocabulary in contract.vocabularies if vocabulary.name in names and vocabulary.path is not None]
    return {vocabulary.name: read_values(folder, vocabulary, NAMED_BINS) for vocabulary in tables}
