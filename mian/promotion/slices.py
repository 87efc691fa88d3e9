"""Parts of the rows in which a model must not get worse, though it is as good as before on the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mian.contract import PADDING_ID, UNKNOWN_ID, Contract, ContractError, Field
from mian.contract.document import LENGTH_COLUMN
from mian.contract.encoder import FIRST_ID
from mian.evaluation.split_columns import read_column
from mian.promotion.contender import Contender
from mian.promotion.settings import SlicesConfig

Mask = npt.NDArray[np.bool_]


def slice_masks(
    contract: Contract, samples: str, split: str, contenders: list[Contender], settings: SlicesConfig
) -> dict[str, Mask]:
    """Which rows each slice has.

    Args:
        contract: of the samples.
        samples: their folder; a local path or any URL that fsspec opens.
        split: the split, of N rows.
        contenders: whose vocabularies say which items are unknown.
        settings: which slices there are.

    Returns:
        By the slice's name, ``(N,)``.

    Raises:
        ContractError: see :func:`sliced_field` and :func:`check_item_field`.
    """
    masks: dict[str, Mask] = {}

    def column(field: Field) -> npt.NDArray[np.int32]:
        values: npt.NDArray[np.int32] = read_column(contract, samples, split, field.column, pa.int32()).to_numpy()
        return values

    if contract.group("behaviors"):
        lengths = read_column(contract, samples, split, LENGTH_COLUMN, pa.int32()).to_numpy()
        masks["no history"] = lengths == 0
        if settings.short_history > 1:
            masks[f"history of 1 to {settings.short_history - 1}"] = (lengths > 0) & (lengths < settings.short_history)
    item = next((field for field in contract.group("candidate") if field.name == settings.item_field), None)
    if item is not None and item.vocabulary is not None:
        masks["unknown item"] = _unknown(column(item), item, contenders)
    for name in settings.fields:
        field = sliced_field(contract, name)
        masks |= dict(_values(contract, field, column(field), contenders, settings.values_per_field))
    return masks


def check_item_field(contract: Contract, settings: SlicesConfig) -> None:
    """See that a field of the item that is named is there; the one that is not named may be missing.

    Raises:
        ContractError: it is not.
    """
    names = [field.name for field in contract.group("candidate") if field.is_categorical]
    if "item_field" in settings.model_fields_set and settings.item_field not in names:
        found = ", ".join(names) or "none"
        raise ContractError(
            f"slices.item_field: {settings.item_field}: the candidate has no such field with a vocabulary; it has {found}"
        )


def sliced_field(contract: Contract, name: str) -> Field:
    """The field of a column whose values are slices.

    Raises:
        ContractError: there is none, or it has no ids.
    """
    field = next((field for field in contract.fields if field.column == name), None)
    usable = [field.column for field in contract.fields if field.is_categorical and field.group != "behaviors"]
    if field is None or name not in usable:
        what = "have no such column" if field is None else "have lists or numbers there"
        raise ContractError(f"slices.fields: {name}: the samples {what}; name columns of {', '.join(usable) or 'other samples'}")
    return field


def _unknown(ids: npt.NDArray[np.int32], field: Field, contenders: list[Contender]) -> Mask:
    """Rows whose value at least one of the models does not know."""
    known = [contender.servable.contract.vocabulary(field.vocabulary or "").size for contender in contenders]
    unknown: Mask = (ids == UNKNOWN_ID) | (ids >= min(known))
    return unknown


def _values(
    contract: Contract, field: Field, ids: npt.NDArray[np.int32], contenders: list[Contender], most: int
) -> Iterator[tuple[str, Mask]]:
    """The most frequent values of a field, and all others together."""
    found, counts = np.unique(ids, return_counts=True)
    frequent = found[np.argsort(-counts, kind="stable")][:most]
    texts = {name: table for c in contenders for name, table in c.servable.vocabularies.items()}.get(field.vocabulary or "")
    for value in frequent.tolist():
        yield f"{field.column} = {_text(value, texts)}", ids == value
    if len(found) > len(frequent):
        yield f"{field.column}: {len(found) - len(frequent):,} other values", ~np.isin(ids, frequent)


def _text(value: int, texts: pa.Array | None) -> str:
    if value in (PADDING_ID, UNKNOWN_ID):
        return "unknown"
    if texts is None or value - FIRST_ID >= len(texts):
        return f"id {value}"
    return repr(texts[value - FIRST_ID].as_py())
