"""Some days of a data set as a split of its own."""

from __future__ import annotations

from collections.abc import Sequence

from mian.contract import Contract, Day, Split

CHOSEN = "chosen"
"""What the contract of :func:`with_days` calls them."""


def with_days(contract: Contract, days: Sequence[Day]) -> Contract:
    """The contract with the days, from the first to the last, as its split :data:`CHOSEN`."""
    span = Split(first=days[0].day, last=days[-1].day)
    return contract.model_copy(update={"splits": {**contract.splits, CHOSEN: span}})
