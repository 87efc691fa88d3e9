"""Models by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from mian.contract import Contract
from mian.layers import tables_without_memory
from mian.models.click_model import ClickModel
from mian.models.dcn import DCN, DCNConfig, DCNv2, DCNv2Config
from mian.models.deepfm import DeepFM, DeepFMConfig
from mian.models.dien import DIEN, DIENConfig
from mian.models.din import DIN, DINConfig
from mian.models.fm import FM, FMConfig
from mian.models.lr import LR, LRConfig
from mian.models.mian import Mian, MianConfig
from mian.models.mian_plus import MianPlus, MianPlusConfig
from mian.models.wide_deep import WideDeep, WideDeepConfig
from mian.models.xdeepfm import XDeepFM, XDeepFMConfig

Value = TypeVar("Value")

#: Parts of the names of weights in files of earlier releases, and what they are called now.
_CURRENT_NAMES = {
    "logit_shift": "sampling_logit_correction",
    "of_candidate": "candidate_projection",
    "of_behavior": "behavior_projection",
    "of_difference": "difference_projection",
    "of_product": "product_projection",
}
_OLD_NAME = re.compile(rf"(?<![^.])({'|'.join(_CURRENT_NAMES)})(?![^.])")


class ModelError(ValueError):
    """No such model, no such option, or a value that an option may not have."""


class Entry(NamedTuple):
    """A model, the class of its options, and the columns that it reads."""

    config: type[BaseModel]
    model: Callable[[Contract, Any], ClickModel]
    columns: Callable[[Contract, Any], tuple[str, ...]]


MODELS: Mapping[str, Entry] = {
    "lr": Entry(LRConfig, LR, LR.columns),
    "fm": Entry(FMConfig, FM, FM.columns),
    "wide_deep": Entry(WideDeepConfig, WideDeep, WideDeep.columns),
    "dcn": Entry(DCNConfig, DCN, DCN.columns),
    "dcn_v2": Entry(DCNv2Config, DCNv2, DCNv2.columns),
    "deepfm": Entry(DeepFMConfig, DeepFM, DeepFM.columns),
    "xdeepfm": Entry(XDeepFMConfig, XDeepFM, XDeepFM.columns),
    "din": Entry(DINConfig, DIN, DIN.columns),
    "dien": Entry(DIENConfig, DIEN, DIEN.columns),
    "mian": Entry(MianConfig, Mian, Mian.columns),
    "mian_plus": Entry(MianPlusConfig, MianPlus, MianPlus.columns),
}


def build(name: str, contract: Contract, options: Mapping[str, Any]) -> ClickModel:
    """Build a model.

    Args:
        name: one of ``MODELS``.
        contract: what the samples are.
        options: fields of the model's configuration; those left out have their defaults.

    Raises:
        ModelError: the name or an option is unknown, or an option's value is not allowed.
        ContractError: the contract lacks what the model needs.
    """
    entry, config = _chosen(name, options)
    return entry.model(contract, config)


def restore(name: str, contract: Contract, options: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> ClickModel:
    """Build a model of weights that are there: they become the model's own, none is drawn or copied.

    Args:
        name: as for :func:`build`, likewise ``contract`` and ``options``.
        contract: See :func:`build`.
        options: See :func:`build`.
        weights: what ``state_dict`` of such a model gives.

    Raises:
        ModelError, ContractError: as :func:`build`.
        RuntimeError: the weights are not of such a model.
    """
    with tables_without_memory():
        model = build(name, contract, options)
    model.load_state_dict(current_names(weights), assign=True)
    return model


def current_names(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Weights, or what an optimizer keeps of them, under the names that models use now. Earlier releases named some of them otherwise.

    Args:
        weights: By name, as ``state_dict`` gives them; names of this release stay as they are.
    """
    return {_OLD_NAME.sub(lambda match: _CURRENT_NAMES[match[0]], name): weight for name, weight in weights.items()}


def model_columns(name: str, contract: Contract, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that a model reads, before it is built; arguments as for :func:`build`.

    Raises:
        ModelError: the name or an option is unknown, or an option's value is not allowed.
    """
    entry, config = _chosen(name, options)
    return entry.columns(contract, config)


def model_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a model, those left out with their defaults; arguments as for :func:`build`.

    Raises:
        ModelError: the name or an option is unknown, or an option's value is not allowed.
    """
    return _chosen(name, options)[1].model_dump(mode="json")


def weights_version(name: str) -> int:
    """See :attr:`mian.models.ClickModel.weights_version`, of the model of a name.

    Raises:
        ModelError: the name is unknown.
    """
    return int(getattr(_entry(name).model, "weights_version", 1))


def _chosen(name: str, options: Mapping[str, Any]) -> tuple[Entry, BaseModel]:
    entry = _entry(name)
    for option in options:
        if option not in entry.config.model_fields:
            raise ModelError(f"model {name!r} has no option {option!r}; {_hint(option, entry.config.model_fields)}")
    try:
        return entry, entry.config.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"model {name!r}, option {place!r}: {first['msg']}; it is {first['input']!r}") from error


def _entry(name: str) -> Entry:
    if name not in MODELS:
        raise ModelError(f"there is no model {name!r}; {_hint(name, MODELS)}")
    return MODELS[name]


def _hint(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    nearest = difflib.get_close_matches(wrong, names, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(names)}"
