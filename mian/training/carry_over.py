"""The weights of one model for another one, whose vocabularies are longer or which has more fields."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel

from mian.layers import FieldEmbedding
from mian.models import UNCALIBRATED, ClickModel

OF_TRAINING_ALONE = frozenset({"auxiliary_weight", "dropout", "init_std"})
"""Options that decide how weights come to be, and not what is computed with them."""


OWN_BUFFERS = frozenset({"sampling_logit_correction", *UNCALIBRATED})
"""Buffers that are not carried over: the sampling correction is of the samples that are trained on, a calibration of final weights."""


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
        CarryOverError: the models are of different kinds or options.
    """
    if type(old) is not type(new):
        raise CarryOverError(f"init_from: it is a {type(old).__name__}, and {type(new).__name__} is to be trained")
    _check_options(old, new)
    before = old.state_dict()
    by_rows = set()
    added = False
    olds = dict(old.named_modules())
    for name, module in new.named_modules():
        if isinstance(module, FieldEmbedding):
            known = olds.get(name)
            if not isinstance(known, FieldEmbedding):
                raise CarryOverError(f"init_from: it has no part {name}; take the options that it was trained with")
            added |= known.rows.keys() != module.rows.keys() or list(known.numbers) != list(module.numbers)
            by_rows |= _embedding(name, known, module, before, weights)
    kept = []
    for name, weight in weights.items():
        if name in by_rows or name in OWN_BUFFERS:
            continue
        if name in before and before[name].shape == weight.shape:
            weight.copy_(before[name])
        else:
            kept.append(name)
    others = kept or sorted(before.keys() - weights.keys())
    if others and not added:
        raise CarryOverError(f"init_from: it has other weights {others[0]}; take the options that it was trained with")
    return kept


def _check_options(old: ClickModel, new: ClickModel) -> None:
    """Weights of one shape may compute something else under other options."""
    before, now = getattr(old, "config", None), getattr(new, "config", None)
    if not isinstance(before, BaseModel) or not isinstance(now, BaseModel):
        return  # a model of the user's own; its weights have to fit
    values, others = before.model_dump(), now.model_dump()
    for name in sorted(values.keys() - OF_TRAINING_ALONE):
        if values[name] != others.get(name):
            raise CarryOverError(
                f"init_from: it was trained with {name}={values[name]}, and {name}={others.get(name)} is to be trained; take "
                f"model.options.{name}={values[name]}"
            )


@torch.no_grad()
def carry_over_moments(
    old: ClickModel, new: ClickModel, before: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor]
) -> list[str]:
    """Put what an old model's optimizer remembers in the place of a new one's; what is new stays at zero.

    Args:
        old: the trained model.
        new: says where the rows of which vocabulary lie.
        before: of the old one's optimizer, by name, see :meth:`mian.optim.optimizer.Optimizer.state`.
        moments: of the new one's, with all rows; changed in place.

    Returns:
        What begins anew: of a table or of the dense weights all or nothing is taken.
    """
    anew = []
    olds, news = dict(old.named_modules()), dict(new.named_modules())
    for group in sorted({name.rpartition(".")[0] for name in moments}):
        names = [name for name in moments if name.rpartition(".")[0] == group]
        embedding = group.removeprefix("optimizer.").removesuffix(".table.weight")
        by_rows = isinstance(news.get(embedding), FieldEmbedding)
        if not all(name in before and (by_rows or before[name].shape == moments[name].shape) for name in names):
            anew.append(group)
            continue
        for name in names:
            if by_rows and moments[name].dim():
                _take_rows(olds[embedding], news[embedding], before[name], moments[name])
            else:
                moments[name].copy_(before[name])
    return anew


def _take_rows(old: torch.nn.Module, new: torch.nn.Module, before: torch.Tensor, after: torch.Tensor) -> None:
    """Take the rows of each vocabulary that the old embedding has, of a tensor with a row for each of its table's."""
    assert isinstance(old, FieldEmbedding) and isinstance(new, FieldEmbedding), "models of one class have the same modules"
    for key, rows in new.rows.items():
        if key in old.rows:
            known = old.rows[key]
            after[rows.start : rows.start + known.stop - known.start] = before[known].to(after)


def _embedding(
    name: str, old: FieldEmbedding, new: FieldEmbedding, before: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> set[str]:
    """Take over an embedding's rows; the names of its weights."""
    table, numbers = f"{name}.table.weight", f"{name}.number_vectors"
    if old.table.width != new.table.width:
        raise CarryOverError(f"init_from: its vectors have a width of {old.table.width}, those to be trained {new.table.width}")
    _take_rows(old, new, before[table], weights[table])
    for place, column in enumerate(new.numbers):
        if column in old.numbers:
            weights[numbers][place] = before[numbers][old.numbers.index(column)].to(weights[numbers])
    return {table, numbers}
