"""What the embedding rows of values begin with that a vocabulary got since a model was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from mian.config import TrainConfig
from mian.contract import UNKNOWN_ID, Contract
from mian.layers import FieldEmbedding
from mian.models import ClickModel
from mian.stream import SampleStream
from mian.training.carry_over import CarryOverError

_ROWS = 1 << 16  # read, or added up, at a time
_FIRST_ID = UNKNOWN_ID + 1

Categories = Mapping[str, npt.NDArray[np.int64]]
"""By vocabulary, the id of each value's category, ``(size,)``; 0 where it is not known, or there are several."""


@torch.no_grad()
def begin_new_rows(
    old: ClickModel, new: ClickModel, weights: Mapping[str, torch.Tensor], config: TrainConfig, contract: Contract
) -> int:
    """Put what ``init_new_rows`` says in the rows of values that the old model does not know.

    A field that the old model does not have stays as it was drawn.

    Args:
        old: the trained model.
        new: says where the rows of which vocabulary lie.
        weights: of the new model, by their names in ``state_dict``, with all rows; changed in place.
        config: of the training.
        contract: of its samples.

    Returns:
        How many rows there are of new values.

    Raises:
        CarryOverError: ``init_category`` is no categorical field of the candidate.
        StreamError, ContractError: the samples of the training days cannot be read.
    """
    embeddings = list(_embeddings(old, new))
    grown = {_vocabulary(key, module, contract) for _, _, module, ranges in embeddings for key in ranges}
    categories: Categories = {}
    if config.init_new_rows == "category_mean":
        categories = value_categories(config, contract, grown)
    before = old.state_dict()
    count = 0
    for name, known, module, ranges in embeddings:
        table = f"{name}.table.weight"
        for key, (first, added) in ranges.items():
            count += added.stop - added.start
            if config.init_new_rows != "draw":
                rows = before[table][known.rows[key]]
                begun = rows[UNKNOWN_ID].repeat(added.stop - added.start, 1)
                if (of_values := categories.get(_vocabulary(key, module, contract))) is not None:
                    _fill_means(begun, rows, of_values, first)
                weights[table][added] = begun.to(weights[table])
    return count


def value_categories(config: TrainConfig, contract: Contract, vocabularies: set[str]) -> Categories:
    """Find the category of each value of the candidate's fields, from all rows of the training split.

    The smallest and the largest category of a value are kept, so that neither the order of the rows nor their number matters.

    Args:
        config: of the training; ``init_category`` names the field of the category.
        contract: of its samples.
        vocabularies: those that are wanted.

    Raises:
        CarryOverError: there is no such field.
        StreamError, ContractError: the samples of the training days cannot be read.
    """
    categorical = [field for field in contract.group("candidate") if field.vocabulary is not None]
    category = next((field for field in categorical if field.name == config.init_category), None)
    if category is None:
        names = ", ".join(field.name for field in categorical) or "none"
        raise CarryOverError(
            f"init_category: the candidate has no categorical field {config.init_category!r}; it has {names}: name one of these, or take "
            "init_new_rows=unknown"
        )
    fields = {field.column: field.vocabulary for field in categorical if field.vocabulary in vocabularies and field != category}
    if not fields:
        return {}
    sizes = {name: contract.vocabulary(name).size for name in fields.values()}
    largest = {name: np.zeros(size, np.int64) for name, size in sizes.items()}
    smallest = {name: np.full(size, np.iinfo(np.int64).max) for name, size in sizes.items()}
    columns = [category.column, *fields]
    stream = SampleStream(
        config.samples, contract, config.train_split, _ROWS, shuffle=False, drop_last=False, columns=columns, workers=1
    )
    for batch in stream.epoch(0):
        ids = batch[category.column].numpy()
        is_known = ids > UNKNOWN_ID
        for column, name in fields.items():
            values = batch[column].numpy()[is_known]
            np.maximum.at(largest[name], values, ids[is_known])
            np.minimum.at(smallest[name], values, ids[is_known])
    return {name: np.where(largest[name] == smallest[name], largest[name], 0) for name in largest}


def _embeddings(
    old: ClickModel, new: ClickModel
) -> Iterator[tuple[str, FieldEmbedding, FieldEmbedding, dict[str, tuple[int, slice]]]]:
    """The embeddings of both models: name, old one, new one, and of each key of rows with new values the first new id and its rows."""
    olds = dict(old.named_modules())
    for name, module in new.named_modules():
        if isinstance(module, FieldEmbedding):
            known = olds[name]
            assert isinstance(known, FieldEmbedding), "models of one class have the same modules"
            sizes = {key: rows.stop - rows.start for key, rows in known.rows.items()}
            added = {key: (sizes[key], slice(r.start + sizes[key], r.stop)) for key, r in module.rows.items() if key in sizes}
            yield name, known, module, {key: (first, rows) for key, (first, rows) in added.items() if rows.stop > rows.start}


def _vocabulary(key: str, module: FieldEmbedding, contract: Contract) -> str:
    """The vocabulary of a key of ``rows``, which is a column where fields share no rows."""
    if module.shared:
        return key
    found = next(field.vocabulary for field in contract.fields if field.column == key)
    assert found is not None, "only categorical fields have rows"
    return found


def _fill_means(begun: torch.Tensor, rows: torch.Tensor, categories: npt.NDArray[np.int64], first: int) -> None:
    """Set new rows to the mean of the known ones of their category, added up in float64 one after the other.

    Args:
        begun: of the values from ``first`` on, ``(N, width)``; those whose category no known value has stay as they are.
        rows: of known values, ``(first, width)``.
        categories: of all values, ``(first + N,)``.
        first: the first new id.
    """
    size = int(categories.max()) + 1
    sums, counts = np.zeros((size, rows.shape[1])), np.zeros(size, np.int64)
    for start in range(_FIRST_ID, first, _ROWS):
        part = categories[start : min(start + _ROWS, first)]
        np.add.at(sums, part, rows[start : start + len(part)].double().cpu().numpy())
        np.add.at(counts, part, 1)
    counts[0] = 0
    wanted = categories[first:]
    has_mean = counts[wanted] > 0
    means = sums[wanted[has_mean]] / counts[wanted[has_mean], None]
    begun[torch.from_numpy(has_mean)] = torch.from_numpy(means).to(begun)
