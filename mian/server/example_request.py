"""A request made of a model's contract and vocabularies: what a new model is tried on, and an example for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mian.contract import Contract, Field

CANDIDATES = 3


def example_request(
    contract: Contract, vocabularies: Mapping[str, pa.Array], history: int = 2, candidates: int = CANDIDATES
) -> dict[str, Any]:
    """The i-th entry of a list has the i-th most frequent value, or the number i.

    Args:
        contract: names the fields.
        vocabularies: for each vocabulary that is a table its values.
        history: behaviors at most.
        candidates: how many.

    Returns:
        ``user``, ``context``, ``behaviors`` and ``candidates`` as a request has them.
    """
    length = min(history, contract.history.length)
    return {
        "user": {field.name: _values(field, vocabularies, 1)[0] for field in contract.group("user")},
        "context": {field.name: _values(field, vocabularies, 1)[0] for field in contract.group("context")},
        "behaviors": {field.name: _values(field, vocabularies, length) for field in contract.group("behaviors")},
        "candidates": {field.name: _values(field, vocabularies, candidates) for field in contract.group("candidate")},
    }


def _values(field: Field, vocabularies: Mapping[str, pa.Array], count: int) -> list[Any]:
    if not field.is_text:
        return [float(place) for place in range(count)]
    known = vocabularies.get(field.vocabulary or "")
    if known is None:  # of a hashed field any text is a value
        return [f"value {place}" for place in range(count)]
    frequent = known.slice(0, count).to_pylist() or [None]
    return [frequent[place % len(frequent)] for place in range(count)]
