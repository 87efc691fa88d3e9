"""What a model reads in the place of a field that is known only after ranking, such as the position."""

from __future__ import annotations

from collections.abc import Collection

from mian.contract import UNKNOWN_ID, Contract, Field
from mian.contract.encoder import FIRST_ID


def serving_stand_ins(contract: Contract, position_fields: Collection[str]) -> dict[str, int | float]:
    """The most frequent value of each of some fields on the training days; of a number the mean.

    Args:
        contract: what the model was trained on.
        position_fields: names of fields of the context; those that the contract lacks are ignored.

    Returns:
        By column an id, or a transformed number.
    """
    return {field.column: _most_frequent(contract, field) for field in contract.group("context") if field.name in position_fields}


def _most_frequent(contract: Contract, field: Field) -> int | float:
    if field.vocabulary is None:
        return 0.0  # the training mean, see NumericTransform
    if contract.vocabulary(field.vocabulary).size <= FIRST_ID:
        return UNKNOWN_ID
    reference = contract.reference.get(field.column)
    known = () if reference is None else reference.shares[1:-1]  # without unknown values and all others
    return FIRST_ID + max(range(len(known)), key=known.__getitem__, default=0)
