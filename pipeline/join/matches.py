"""How many rows found their partner: clicks an impression, impressions an item, a user and rows of lookups, behaviors an item."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import BoolArray, IntArray

#: Sources, as ``quality.min_matched`` names them; lookups have their number behind a dot.
CLICKS, ITEMS, USERS, BEHAVIORS, LOOKUPS = "clicks", "items", "users", "behaviors", "lookups"
#: Rows without a partner that an error shows.
SHOWN = 3

Found = dict[str, Any]


def matched_column(source: str) -> str:
    """The column that says whether ``items``, ``users`` or a lookup (``lookups.0``) has a row of the key, at whatever time."""
    return f"_{source.replace('.', '_')}_matched"


class Matches:
    """Counts of some rows, by day and source.

    Args:
        days: those that are counted, from 1970-01-01.
    """

    def __init__(self, days: Iterable[int]) -> None:
        self._wanted = np.array(sorted(days), np.int64)
        self._days: dict[int, dict[str, Found]] = defaultdict(dict)

    def add(
        self,
        source: str,
        days: IntArray,
        found: BoolArray,
        names: Callable[[IntArray], Sequence[str]],
        early: BoolArray | None = None,
    ) -> None:
        """Add the rows of a source.

        Args:
            source: see the constants.
            days: the days of the rows, shape ``(N,)``.
            found: whether each has its partner, shape ``(N,)``.
            names: what some rows, given by their places, are called in errors.
            early: of clicks, whether each has an impression, but a later one.
        """
        for day in self._wanted[np.isin(self._wanted, days)].tolist():
            rows = np.flatnonzero(days == day)
            alone = rows[~found[rows]]
            self._days[day][source] = {
                "rows": len(rows),
                "found": len(rows) - len(alone),
                "early": int(early[rows].sum()) if early is not None else 0,
                "examples": sorted(set(names(alone[: 10 * SHOWN])))[:SHOWN],
            }

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Each day and its counts, for :func:`merged`."""
        for day, sources in sorted(self._days.items()):
            yield day, json.dumps(sources).encode()


def has_flags(table: pa.Table, source: str) -> bool:
    """Whether Spark joined a source, and says of each row whether it found its partner."""
    return matched_column(source) in table.column_names


def flags(table: pa.Table, source: str, rows: IntArray) -> BoolArray:
    """Whether each of some rows found its partner, shape ``(N,)``."""
    column = pc.fill_null(table.column(matched_column(source)).take(pa.array(rows)), False)
    found: BoolArray = column.to_numpy().astype(np.bool_)
    return found


def ids_of(table: pa.Table, column: str, rows: IntArray, *, with_user: bool = False) -> Callable[[IntArray], list[str]]:
    """What some rows are called in errors: an id, with its user's where that is part of what it is."""

    def names(places: IntArray) -> list[str]:
        part = table.take(pa.array(rows[places]))
        ids, users = part.column(column).to_pylist(), part.column("user_id").to_pylist()
        return [f"{name!r} of user {user!r}" if with_user else repr(name) for name, user in zip(ids, users, strict=True)]

    return names


def merged(parts: Iterable[Mapping[str, Found]]) -> dict[str, Found]:
    """The counts of several parts together, by source: ``rows``, ``found``, ``early``, and some ``examples`` that found none."""
    sources: dict[str, Found] = {}
    for part in parts:
        for source, found in part.items():
            known = sources.setdefault(source, {"rows": 0, "found": 0, "early": 0, "examples": []})
            for key in ("rows", "found", "early"):
                known[key] += found[key]
            known["examples"] = sorted({*known["examples"], *found["examples"]})[:SHOWN]
    return dict(sorted(sources.items()))
