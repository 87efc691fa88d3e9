"""From what a model reads back to raw values, for people to look at: the encoder's other way, as far as there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from mian.contract.document import LENGTH_COLUMN, Contract, Field, NumericTransform, Vocabulary
from mian.contract.encoder import FIRST_ID

#: Units of time in seconds, the longest first.
UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def decode_row(contract: Contract, tables: Mapping[str, pa.Array], row: Mapping[str, Any]) -> dict[str, Any]:
    """Raw values of a sample, by column; of behaviors the real ones, in lists.

    An id of a table is the value that it stands for, and an unknown id, or one that the table does not have, is None. A hashed id stands
    for many values and stays a number: ``hash 7``. A bucket is its range. Numbers are transformed back, up to the rounding of float32; of a
    missing one this is the training mean, which is what the model reads in its place.

    Args:
        contract: What the row is a sample of.
        tables: For each vocabulary that is a table its values in the order of their ids.
        row: A number for each column, a list of the history's length for a column of behaviors, and ``behavior_length``.
    """
    decoded: dict[str, Any] = {}
    for field in contract.fields:
        if field.group == "behaviors":
            entries: Sequence[float] = row[field.column][: row[LENGTH_COLUMN]]
            decoded[field.column] = [decode_value(contract, tables, field, entry) for entry in entries]
        else:
            decoded[field.column] = decode_value(contract, tables, field, row[field.column])
    return decoded


def decode_value(contract: Contract, tables: Mapping[str, pa.Array], field: Field, encoded: float) -> str | float | None:
    """The raw value of one id or number of a field; see :func:`decode_row`."""
    if field.vocabulary is None:
        return _decoded(field, None, None, encoded)
    return _decoded(field, contract.vocabulary(field.vocabulary), tables.get(field.vocabulary), encoded)


def _decoded(field: Field, vocabulary: Vocabulary | None, values: pa.Array | None, encoded: float) -> str | float | None:
    if vocabulary is None:
        assert field.transform is not None
        return _number(field.transform, encoded)
    place = int(encoded) - FIRST_ID
    if place < 0:
        return None
    if vocabulary.kind == "hash":
        return f"hash {int(encoded)}"
    if vocabulary.kind == "buckets":
        return _bucket(field, vocabulary.edges or (), place)
    assert values is not None
    text: str | None = values[place].as_py() if place < len(values) else None
    return text


def _number(transform: NumericTransform, encoded: float) -> float:
    scaled = encoded * transform.std + transform.mean
    try:
        return math.copysign(math.expm1(abs(scaled)), scaled) if transform.kind == "log" else scaled
    except OverflowError:
        return math.copysign(math.inf, scaled)


def _bucket(field: Field, edges: Sequence[float], place: int) -> str:
    """The range of numbers that have an id: ``below 10``, ``10 to 20``, ``from 20``."""
    shown = [_time(edge) if field.kind == "time_gap" else f"{edge:g}" for edge in edges]
    if not shown:
        return "any number"
    if place == 0:
        return f"below {shown[0]}"
    return f"{shown[place - 1]} to {shown[place]}" if place < len(shown) else f"from {shown[-1]}"


def _time(seconds: float) -> str:
    """A time in the longest unit of which it has one: ``1.5 h``."""
    unit, length = next((pair for pair in UNITS if seconds >= pair[1]), UNITS[-1])
    return f"{seconds / length:.3g} {unit}"
