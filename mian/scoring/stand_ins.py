"""What a model reads in the place of a field that is known only after ranking, such as the position."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from mian.contract import UNKNOWN_ID, Contract, ContractError, Field
from mian.contract.encoder import FIRST_ID

Position = Literal["logged", "serving"]


def serving_stand_ins(contract: Contract, position_fields: Collection[str]) -> dict[str, int | float]:
    """The most frequent value of each of some fields on the training days; of a number the mean.

    Args:
        contract: what the model was trained on.
        position_fields: names of fields of the context; those that the contract lacks are ignored.

    Returns:
        By column an id, or a transformed number.
    """
    return {field.column: _most_frequent(contract, field) for field in contract.group("context") if field.name in position_fields}


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
