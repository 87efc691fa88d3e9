"""The peers of DeepCTR-Torch 0.3.0, an independent implementation, with the weights of ours.

Its import asks a package index for newer releases, in a thread that ends when it has an answer: here it is told at once that there is none.
"""

import threading
from collections.abc import Mapping
from typing import Any
from unittest import mock

import requests
import torch

from mian.contract import Contract, Field
from mian.layers import GRU, ActivationUnit, FieldVectors, LinearPart
from mian.layers.embedding import FieldEmbedding

_running = set(threading.enumerate())
with mock.patch.object(requests, "get", side_effect=requests.ConnectionError("tests ask no network")):
    from deepctr_torch import models
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat

    for thread in set(threading.enumerate()) - _running:
        thread.join()

__all__ = ["columns", "copy_gru", "copy_linear", "copy_mlp", "copy_unit", "copy_vectors", "models", "rows"]

LENGTH = "behavior_length"
HISTORY = "hist_"  # what DIN and DIEN call a candidate's field among the behaviors


def columns(
    contract: Contract, width: int, history: str = "behavior_", shared: bool = True, with_pooled: bool = True
) -> list[Any]:
    """The fields of a contract, all categorical, as feature columns: candidate, behaviors, user, context."""
    found = []
    for field in sorted(contract.fields, key=lambda field: ("candidate", "behaviors", "user", "context").index(field.group)):
        assert field.vocabulary is not None
        size = contract.vocabulary(field.vocabulary).size
        name = f"{history}{field.name}" if field.group == "behaviors" else _name(field)
        sparse = SparseFeat(name, size, width, embedding_name=table_of(field, shared))
        steps = contract.history.length
        found.append(VarLenSparseFeat(sparse, steps, "mean", LENGTH) if field.group == "behaviors" else sparse)
    return found


def rows(
    contract: Contract, batch: Mapping[str, torch.Tensor], model: Any, history: str = "behavior_", oldest_first: bool = False
) -> Any:
    """A batch as the one matrix that DeepCTR's models read."""
    given = {_name(field): batch[field.column][:, None] for field in contract.fields if field.group != "behaviors"}
    lengths = batch[LENGTH].long()
    for field in contract.group("behaviors"):
        values = batch[field.column]
        if oldest_first:
            turned = (lengths[:, None] - 1 - torch.arange(values.shape[1])).clamp(min=0)
            values = values.gather(1, turned) * (torch.arange(values.shape[1]) < lengths[:, None])
        given[f"{history}{field.name}"] = values
        given[f"neg_{history}{field.name}"] = values
    given[LENGTH] = batch[LENGTH][:, None]
    return torch.cat([given[name].float() for name in model.feature_index], dim=1)


def logits(model: Any, matrix: torch.Tensor) -> torch.Tensor:
    """Before the sigmoid, whose float32 would hide differences."""
    found = []
    hook = model.out.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().clone()))
    with torch.no_grad():
        model.eval()(matrix)
    hook.remove()
    return (found[0] + model.out.bias.detach()).squeeze(1)


def copy_vectors(theirs: Any, ours: FieldVectors | FieldEmbedding, contract: Contract, shared: bool = True) -> None:
    """Embedding tables; ``theirs`` by name."""
    embedding = ours.embedding if isinstance(ours, FieldVectors) else ours
    for field in contract.fields:
        field_rows = embedding.rows[str(field.vocabulary) if shared else field.column]
        _copy(theirs[table_of(field, shared)].weight, embedding.table.weight[field_rows])


def copy_linear(theirs: Any, ours: LinearPart, contract: Contract) -> None:
    """Its linear model has no bias; the one of its prediction layer is ours."""
    copy_vectors(theirs.linear_model.embedding_dict, ours.weights, contract, shared=False)
    _copy(theirs.out.bias, ours.bias)


def copy_mlp(theirs: Any, ours: torch.nn.Module, places: torch.Tensor | None = None) -> None:
    """Hidden layers, with what Dice has learned; ``places`` are where the columns of their input lie in ours, None: where theirs do."""
    layers = list(ours.children())[::3]
    activations = list(ours.children())[1::3]
    for their, our, their_activation, activation in zip(
        theirs.linears, layers, theirs.activation_layers, activations, strict=True
    ):
        _copy(their.weight, our.weight if places is None else our.weight[:, places])
        _copy(their.bias, our.bias)
        places = None
        _copy_dice(their_activation, activation)


def copy_unit(theirs: Any, ours: ActivationUnit) -> None:
    """The activation unit: our parts of the first layer are theirs side by side."""
    parts = (ours.candidate_projection, ours.behavior_projection, ours.difference_projection, ours.product_projection)
    first = theirs.dnn.linears[0]
    _copy(first.weight, torch.cat([part.weight for part in parts if part is not None], dim=1))
    _copy(first.bias, ours.candidate_projection.bias)
    _copy_dice(theirs.dnn.activation_layers[0], ours.activation)
    layers, activations = list(ours.mlp.children())[::3], list(ours.mlp.children())[1::3]
    for number, (layer, activation) in enumerate(zip(layers, activations, strict=True), start=1):
        _copy(theirs.dnn.linears[number].weight, layer.weight)
        _copy(theirs.dnn.linears[number].bias, layer.bias)
        _copy_dice(theirs.dnn.activation_layers[number], activation)
    _copy(theirs.dense.weight, ours.score.weight)
    _copy(theirs.dense.bias, ours.score.bias)


def copy_gru(theirs: Any, ours: GRU, update_is_share_kept: bool) -> None:
    """torch's GRU keeps a share ``z`` of its state, the paper's takes a share ``u`` of the new one: ``z = 1 - u``, so signs turn.

    Args:
        theirs: torch's, or DeepCTR's cell for attention, whose ``u`` is the paper's.
        ours: whose weights are copied.
        update_is_share_kept: whether theirs has ``z``.
    """
    hidden = ours.recurrent.shape[1]
    sign = torch.ones(3 * hidden, 1)
    if update_is_share_kept:
        sign[hidden : 2 * hidden] = -1
    suffix = "_l0" if update_is_share_kept else ""
    _copy(getattr(theirs, f"weight_ih{suffix}"), ours.inputs.weight * sign)
    _copy(getattr(theirs, f"weight_hh{suffix}"), ours.recurrent * sign)
    # By a slip the cell's two biases are one parameter; the second, inside of the product with r, the paper does not have.
    setattr(theirs, f"bias_ih{suffix}", torch.nn.Parameter((ours.inputs.bias * sign[:, 0]).detach()))
    setattr(theirs, f"bias_hh{suffix}", torch.nn.Parameter(torch.zeros(3 * hidden)))


def table_of(field: Field, shared: bool) -> str:
    """A name that torch accepts for a module in a dictionary: without a dot, and none of a dictionary's own."""
    return f"of_{field.vocabulary if shared else field.column}".replace(".", "_")


def _name(field: Field) -> str:
    """DIN and DIEN find the candidate's fields by the name of the behaviors'."""
    return field.name if field.group == "candidate" else field.column


def _copy_dice(theirs: Any, ours: Any) -> None:
    if hasattr(theirs, "alpha"):
        _copy(theirs.alpha, ours.alpha.reshape(theirs.alpha.shape))
        _copy(theirs.bn.running_mean, ours.normalization.moving[0])
        _copy(theirs.bn.running_var, ours.normalization.moving[1])
        torch.nn.init.ones_(theirs.bn.weight)
        torch.nn.init.zeros_(theirs.bn.bias)


def _copy(theirs: torch.Tensor, ours: torch.Tensor) -> None:
    with torch.no_grad():
        theirs.copy_(ours)
