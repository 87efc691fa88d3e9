"""The weights of one model for another one, whose vocabularies are longer or which has more fields."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mian.layers import FieldEmbedding
from mian.models import ClickModel


class CarryOverError(RuntimeError):
    """The weights of a model are of no use to another one."""


@torch.no_grad()
def carry_over(old: ClickModel, new: ClickModel, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Put an old model's weights in the place of a new one's.

    Of an embedding, each vocabulary's rows that the old model has and each numeric column's vector are taken; what is new stays as it
    was drawn. Of all else, what has the same shape is taken.

    Args:
        old: the trained model.
        new: says where the rows of which vocabulary lie.
        weights: of the new model, by their names in ``state_dict``, with all rows; changed in place.

    Returns:
        The weights that stay as they were drawn, since they have another shape with the new fields.

    Raises:
        CarryOverError: the models are of different kinds, or their embeddings of different widths.
    """
    if type(old) is not type(new):
        raise CarryOverError(f"init_from: it is a {type(old).__name__}, and {type(new).__name__} is to be trained")
    before = old.state_dict()
    by_rows = set()
    olds = dict(old.named_modules())
    for name, module in new.named_modules():
        if isinstance(module, FieldEmbedding):
            by_rows |= _embedding(name, olds[name], module, before, weights)
    kept = []
    for name, weight in weights.items():
        if name in by_rows or name == "logit_shift":  # which is of the samples that are trained on
            continue
        if name in before and before[name].shape == weight.shape:
            weight.copy_(before[name])
        else:
            kept.append(name)
    return kept


def _embedding(
    name: str, old: torch.nn.Module, new: FieldEmbedding, before: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> set[str]:
    """Take over an embedding's rows; the names of its weights."""
    table, numbers = f"{name}.table.weight", f"{name}.number_vectors"
    assert isinstance(old, FieldEmbedding), "models of one class have the same modules"
    if old.table.width != new.table.width:
        raise CarryOverError(f"init_from: its vectors have a width of {old.table.width}, those to be trained {new.table.width}")
    for key, rows in new.rows.items():
        if key in old.rows:
            known = old.rows[key]
            weights[table][rows.start : rows.start + known.stop - known.start] = before[table][known].to(weights[table])
    for place, column in enumerate(new.numbers):
        if column in old.numbers:
            weights[numbers][place] = before[numbers][old.numbers.index(column)].to(weights[numbers])
    return {table, numbers}
