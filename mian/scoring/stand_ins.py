"""What a model reads in the place of a field that is known only after ranking, such as the position."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

from mian.contract import UNKNOWN_ID, Contract, ContractError, Field, vocabulary_values
from mian.contract.decoder import decode_value
from mian.contract.encoder import FIRST_ID
from mian.scoring.raw_values import ServingInputError
from mian.scoring.value_encoder import ValueEncoder

Position = Literal["logged", "serving"]
POSITION = "position"


def serving_stand_ins(
    contract: Contract, position_fields: Mapping[str, Any], vocabularies: Mapping[str, bytes]
) -> dict[str, int | float]:
    """What a model reads in the place of fields of the context that are known only after ranking.

    Args:
        contract: what the model is trained on.
        position_fields: by name of the field a raw value; None takes the most frequent one of the training days, of a number the mean.
            A field ``position`` may be named where the contract has none.
        vocabularies: the contract's, see :func:`mian.scoring.servable_files.read_vocabularies`.

    Returns:
        By column an id, or a transformed number.

    Raises:
        ContractError: the contract has no such field, or the value is none of its vocabulary.
    """
    fields = {field.name: field for field in contract.group("context")}
    unknown = [name for name in position_fields if name not in fields and name != POSITION]
    if unknown:
        raise ContractError(
            f"position_fields: the samples have no field {unknown[0]!r} of the context; they have {', '.join(fields) or 'none'}"
        )
    found: dict[str, int | float] = {}
    for name, value in position_fields.items():
        if name in fields:
            field = fields[name]
            found[field.column] = (
                _most_frequent(contract, field) if value is None else _encoded(contract, field, value, vocabularies)
            )
    return found


def _encoded(contract: Contract, field: Field, value: Any, vocabularies: Mapping[str, bytes]) -> int | float:
    name = field.vocabulary or ""
    tables = {name: vocabulary_values(io.BytesIO(vocabularies[name]))} if name in vocabularies else {}
    used = tuple(vocabulary for vocabulary in contract.vocabularies if vocabulary.name == name)
    encoder = ValueEncoder(contract.model_copy(update={"vocabularies": used}), tables)
    try:
        encoded = encoder.encode(field, [value])[0]
    except ServingInputError as error:
        raise ContractError(f"position_fields: {field.name}: {value!r}: {error}") from error
    if field.vocabulary is not None and encoded == UNKNOWN_ID:
        raise ContractError(
            f"position_fields: {field.name}: {value!r} is no value of its vocabulary on the training days; name one that is, or null for "
            "the most frequent"
        )
    return float(encoded) if field.vocabulary is None else int(encoded)


def position_stand_ins(stand_ins: Mapping[str, int | float], position: Position) -> dict[str, int | float]:
    """What is read in the place of values that are there, by column.

    Args:
        stand_ins: of the model.
        position: ``logged``: nothing, all values are those of the rows. ``serving``: all stand-ins.

    Raises:
        ContractError: the model has none.
    """
    if position == "logged":
        return {}
    if not stand_ins:
        raise ContractError(
            "the model has nothing that stands for a position: none of its context fields is named in position_fields of its training; "
            "score with --position logged, or train it again with position_fields"
        )
    return dict(stand_ins)


def _most_frequent(contract: Contract, field: Field) -> int | float:
    if field.vocabulary is None:
        return 0.0  # the training mean, see NumericTransform
    if contract.vocabulary(field.vocabulary).size <= FIRST_ID:
        return UNKNOWN_ID
    reference = contract.reference.get(field.column)
    known = () if reference is None else reference.shares[1:-1]  # without unknown values and all others
    return FIRST_ID + max(range(len(known)), key=known.__getitem__, default=0)


def described(contract: Contract, column: str, value: float, vocabularies: Mapping[str, bytes]) -> str:
    """What stands for a column, for people: its raw value, and on how many rows of the training days it was where that is known.

    Args:
        contract: see :func:`serving_stand_ins`.
        column: of the context.
        value: an id, or a transformed number.
        vocabularies: see :func:`serving_stand_ins`.
    """
    field = next(field for field in contract.group("context") if field.column == column)
    name = field.vocabulary or ""
    tables = {name: vocabulary_values(io.BytesIO(vocabularies[name]))} if name in vocabularies else {}
    raw = decode_value(contract, tables, field, value)
    reference = contract.reference.get(column)
    place = int(value) - FIRST_ID + 1
    if field.vocabulary is None or reference is None or not 0 < place < len(reference.shares) - 1:
        return str(raw)
    return f"{raw} ({reference.shares[place]:.1%} of the training days' rows)"
