"""Counts that say what a day looks like, and how far it lies from the training days."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mian.contract import UNKNOWN_ID, Contract, Field, Reference
from mian.contract.document import LABEL_COLUMN, LENGTH_COLUMN
from mian.contract.encoder import LARGEST_NUMBER
from pipeline.join.matches import merged

#: So many ids have a bin of their own: in a vocabulary made of training days the most frequent ones.
NAMED_BINS = 20
#: Buckets of a number, each with about as many training samples.
NUMBER_BINS = 10

Counts = dict[str, Any]


def binned(field: Field, size: int | None, reference: Reference | None, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many encoded values there are in each bin; see :class:`mian.contract.Reference`.

    Args:
        field: which field the values are of.
        size: of its vocabulary; None where it has none.
        reference: the edges of a number's bins.
        values: encoded, shape ``(N,)``; no padding.
    """
    if field.is_categorical:
        bins = min((size or 0) - UNKNOWN_ID, NAMED_BINS + 2)
        return np.bincount(np.minimum(values, UNKNOWN_ID + bins - 1), minlength=UNKNOWN_ID + bins)[UNKNOWN_ID:]
    edges = np.asarray(reference.edges if reference is not None and reference.edges is not None else (), np.float64)
    return np.bincount(np.searchsorted(edges, values.astype(np.float64), "right"), minlength=len(edges) + 1)


def measure(
    contract: Contract,
    columns: Mapping[str, npt.NDArray[Any]],
    behaviors: Mapping[str, npt.NDArray[Any]],
    seen: npt.NDArray[np.bool_],
    ages: npt.NDArray[np.int64],
    missing: Mapping[str, int],
) -> Counts:
    """Count some samples.

    Args:
        contract: fields, vocabularies and references.
        columns: encoded columns of shape ``(N,)``, with the label and the behaviors' lengths.
        behaviors: encoded columns of all behaviors, one sample's after the other's.
        seen: whether the candidate item is among the behaviors, shape ``(N,)``.
        ages: numbers of behaviors by whole days before their impression.
        missing: of each numeric column how many values are missing.

    Returns:
        JSON values: ``rows``, ``positives``, ``seen``, ``history_length``, ``behavior_age_days``, and by column ``counts`` and (but
        for behaviors) ``positives`` of each bin, of numbers also ``missing``, and ``clipped``: how many were cut to a number that float32
        can hold.
    """
    positive = columns[LABEL_COLUMN] == 1
    counts: Counts = {
        "rows": len(positive),
        "positives": int(positive.sum()),
        "seen": int(seen.sum()),
        "history_length": np.bincount(columns[LENGTH_COLUMN], minlength=contract.history.length + 1).tolist(),
        "behavior_age_days": ages.tolist(),
        "columns": {},
    }
    for field in contract.fields:
        is_behavior = field.group == "behaviors"
        values = (behaviors if is_behavior else columns)[field.column]
        size = contract.vocabulary(field.vocabulary).size if field.vocabulary is not None else None
        reference = contract.reference.get(field.column)
        column: dict[str, Any] = {"counts": binned(field, size, reference, values).tolist()}
        if not field.is_categorical:
            column |= {"missing": missing[field.column], "clipped": int((np.abs(values) >= LARGEST_NUMBER).sum())}
        if not is_behavior:
            column["positives"] = binned(field, size, reference, values[positive]).tolist()
        counts["columns"][field.column] = column
    return counts


def total(parts: Iterable[Counts]) -> Counts:
    """The counts of several parts together, with ``matched``: how many rows found their partner, by source."""
    parts = list(parts)
    result: Counts = {key: sum(part[key] for part in parts) for key in ("rows", "positives", "seen")}
    for key in ("history_length", "behavior_age_days"):
        result[key] = _sum([part[key] for part in parts])
    columns: dict[str, list[dict[str, Sequence[int]]]] = defaultdict(list)
    for part in parts:
        for name, column in part["columns"].items():
            columns[name].append(column)
    result["columns"] = {
        name: {key: _added([column[key] for column in found if key in column]) for key in found[0]}
        for name, found in columns.items()
    }
    result["matched"] = merged(part["matched"] for part in parts if "matched" in part)
    return result


def before_thinning(column: Mapping[str, Sequence[int]], kept: float) -> list[int]:
    """About how many values of a column each bin had before negatives were left out.

    Args:
        column: ``counts`` of the bins, and of those of samples with label 1 ``positives``; without the latter they stay as they are.
        kept: the share of negatives that was kept.
    """
    counts, positives = column["counts"], column.get("positives")
    if positives is None or kept == 1.0:
        return list(counts)
    return [positive + round((count - positive) / kept) for count, positive in zip(counts, positives, strict=True)]


def shares(counts: Sequence[int]) -> tuple[float, ...]:
    """Counts as shares, to six digits; all 0 where there is nothing."""
    whole = sum(counts)
    return tuple(round(count / whole, 6) if whole else 0.0 for count in counts)


def unknown_share(counts: Counts, field: Field) -> float | None:
    """The share of unknown ids, or of missing numbers, in a column; None of numbers where an earlier release did not count them."""
    column = counts["columns"][field.column]
    if field.is_categorical:
        return shares(column["counts"])[0]
    whole = sum(column["counts"])
    return round(column["missing"] / whole, 6) if "missing" in column and whole else None


def _added(parts: Sequence[int] | Sequence[Sequence[int]]) -> int | list[int]:
    return sum(parts) if isinstance(parts[0], int) else _sum(parts)  # type: ignore[arg-type]


def _sum(rows: Sequence[Sequence[int]]) -> list[int]:
    total = np.zeros(max((len(row) for row in rows), default=0), np.int64)
    for row in rows:
        total[: len(row)] += np.asarray(row, np.int64)
    result: list[int] = total.tolist()
    return result
