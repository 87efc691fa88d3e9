"""The page of all keys of the configurations, from their pydantic models and the docstrings of their fields."""

from __future__ import annotations

import datetime as dt
import functools
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import griffe
import yaml
from documentation import ROLE, without_roles
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from reference_text import paragraphs, slug, table

from mian.config import TrainConfig
from mian.experiments import ExperimentConfig
from mian.models import MODELS
from mian.monitoring.settings import MonitoringConfig
from mian.nightly.settings import NightlyConfig
from mian.promotion.settings import PromotionConfig
from pipeline.config import DataConfig

INTRODUCTION = """\
# Configuration

Every job that takes `--config` reads one YAML file. This page lists all keys of the five kinds of
files, and the options of all models.

- Arguments after the file replace values. Dots reach inside: `optimizer.learning_rate=0.002`.
- `${key}` takes the value of another key, `${oc.env:NAME}` that of an environment variable.
- A key that is not listed here is an error. The message names the nearest key that exists.
- A key without a default is marked as required. `NAME` stands for a name that you choose, and
  `NUMBER` for a place in a list, from 0.
"""

SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", dt.date: "date"}

#: Longer defaults go below their table.
LONGEST_DEFAULT = 60


def configuration_page() -> str:
    """The page of all keys of all configurations."""
    roots: dict[type[BaseModel], tuple[str, str]] = {
        DataConfig: ("Data sets", "A file under `conf/data/`, for `simulate_logs`, `build_samples` and `audit_samples`."),
        TrainConfig: ("Trainings", "A file under `conf/train/`, for `train` and `register`."),
        PromotionConfig: ("Promotions", "A file such as `conf/promotion.yaml`, for `promote`."),
        MonitoringConfig: ("Monitoring", "A file such as `conf/monitoring.yaml`, for `monitor`."),
        NightlyConfig: ("Nights", "A file under `conf/nightly/`, for `nightly`."),
        ExperimentConfig: ("Experiments", "A file under `conf/experiment/`, for `reproduce`."),
    }
    sections: dict[type[BaseModel], list[str]] = {}  # the places where the keys of each stand
    first: dict[type[BaseModel], type[BaseModel]] = {}  # under which root each is described
    for root in roots:
        for model, places in _places(root).items():
            if first.setdefault(model, root) is root:
                sections[model] = places
    headings = {model: _heading(model, places) for model, places in sections.items()}
    headings |= {entry.config: f"Model `{name}`" for name, entry in MODELS.items()}
    page = ConfigurationPage(headings)
    parts = [INTRODUCTION]
    for root, (title, file) in roots.items():
        parts += [f"## {title}\n", page.text(root), f"{file}\n", page.keys(root)]
        for model in (model for model in sections if first[model] is root):
            *places, last = (f"`{place}`" for place in sections[model])
            parts += [f"### {headings[model]}\n", page.text(model)]
            parts += [paragraphs(f"These are the keys of {', '.join(places)} and {last}.")] if places else []
            parts += [page.keys(model)]
    parts += ["## Options of models\n", "`model.name` of a training names the model, and `model.options` holds its options.\n"]
    for entry in MODELS.values():
        parts += [f"### {headings[entry.config]}\n", page.keys(entry.config)]
    return "\n".join(parts).rstrip() + "\n"


def _places(root: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """The models inside of a model, in the order of their keys, each with the places where its keys stand."""
    places: dict[type[BaseModel], list[str]] = {}

    def visit(model: type[BaseModel], above: str) -> None:
        for name, field in model.model_fields.items():
            for inner, inside in _models(field.annotation, f"{above}{field.alias or name}"):
                places.setdefault(inner, []).append(inside)
                visit(inner, f"{inside}.")

    visit(root, "")
    return places


def _models(annotation: Any, place: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, place
    inside = {dict: f"{place}.NAME", list: f"{place}.NUMBER", tuple: f"{place}.NUMBER"}
    for argument in typing.get_args(annotation):
        yield from _models(argument, inside.get(typing.get_origin(annotation), place))


def _heading(model: type[BaseModel], places: Sequence[str]) -> str:
    """The place of a model that stands at one; else its name in words."""
    if len(places) == 1:
        return f"`{places[0]}`"
    return re.sub(r"(?<!^)([A-Z])", lambda letter: f" {letter[0].lower()}", model.__name__.removesuffix("Config"))


class ConfigurationPage:
    """The parts of the page; texts that name a model link to its section.

    Args:
        headings: The heading of each model's section.
    """

    def __init__(self, headings: Mapping[type[BaseModel], str]) -> None:
        self._links = {model: f"[{heading}](#{slug(heading)})" for model, heading in headings.items()}
        self._by_name = {model.__name__: link for model, link in self._links.items()}

    def text(self, model: type[BaseModel]) -> str:
        """What a model is."""
        return paragraphs(self._linked(_docstring(model)))

    def keys(self, model: type[BaseModel]) -> str:
        """A table of a model's keys, without those of a model that it extends; below it defaults that are too long for a row."""
        base = next((base for base in model.__mro__[1:] if base in self._links), None)
        parts, rows = [f"It has all keys of {self._links[base]}. These are new or have another default:\n"] if base else [], []
        for name, field in model.model_fields.items():
            if base and name not in model.__annotations__:
                continue
            key, kind, default = field.alias or name, typing.cast(Any, field.annotation), "required"
            if not field.is_required():
                value = TypeAdapter(kind).dump_python(field.get_default(), mode="json", exclude_defaults=True)
                default = f"`{_flow(value)}`"
            if len(default) > LONGEST_DEFAULT:
                block = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=96)
                parts.append(f"The default of `{key}`:\n\n```yaml\n{block}```\n")
                default = "see below"
            rows.append([f"`{key}`", self._type(kind, field.metadata), default, self._meaning(model, name, kind)])
        parts.insert(bool(base), table(["key", "type", "default", "meaning"], rows))
        return "\n".join(parts)

    def _meaning(self, model: type[BaseModel], name: str, annotation: Any) -> str:
        """A field's docstring, or else the first sentence of the docstring of what it holds."""
        text = next(filter(None, (_docstring(base, name) for base in model.__mro__ if base in self._links or base is model)), "")
        inner = next(_models(annotation), None)
        if not text and inner is not None:
            text = re.split(r"(?<=\.)\s+(?=[A-Z])", _docstring(inner[0]), maxsplit=1)[0]
        return self._linked(" ".join(text.split()))

    def _linked(self, text: str) -> str:
        return without_roles(ROLE.sub(lambda role: self._by_name.get(role[2].rpartition(".")[2], role[0]), text))

    def _type(self, annotation: Any, limits: Sequence[Any] = ()) -> str:
        """A type and its limits: ``integer >= 1 or null``."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._type(arguments[0], [*limits, *annotation.__metadata__])
        if origin in (typing.Union, types.UnionType):
            return _either([text for kind in arguments for text in self._alternatives(kind, limits)])
        if origin is typing.Literal:
            return _either(self._alternatives(annotation))
        if annotation is type(None):
            return "null"
        if origin in (list, tuple):
            return f"list of {self._type(arguments[0])}{_limits(limits)}"
        if origin is dict:
            return f"mapping of string to {self._type(arguments[1])}{_limits(limits)}"
        return self._links.get(annotation) or f"{SCALARS.get(annotation, 'any value')}{_limits(limits)}"

    def _alternatives(self, annotation: Any, limits: Sequence[Any] = ()) -> list[str]:
        if typing.get_origin(annotation) is typing.Literal:
            return [f"`{_flow(value)}`" for value in typing.get_args(annotation)]
        return [self._type(annotation, limits)]


def _either(texts: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _flow(value: Any) -> str:
    """A value as YAML writes it on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def _limits(limits: Sequence[Any]) -> str:
    signs = {"gt": "&gt;", "ge": "&gt;=", "lt": "&lt;", "le": "&lt;="}
    plain = [inner for limit in limits for inner in (limit.metadata if isinstance(limit, FieldInfo) else [limit])]
    numbers = [
        f"{sign} {_number(getattr(limit, name))}" for limit in plain for name, sign in signs.items() if hasattr(limit, name)
    ]
    lengths = [f", at least {limit.min_length} long" for limit in plain if hasattr(limit, "min_length")]
    return " " * bool(numbers) + " and ".join(numbers) + "".join(lengths).replace(", at least 1 long", ", not empty")


def _number(value: float) -> str:
    """A number in digits, but for the limits of 64-bit integers."""
    powers = {2**63: "2^63", -(2**63): "-2^63", 2**63 - 1: "2^63 - 1"}
    return powers.get(int(value), f"{int(value):,}" if value == int(value) else str(value))


def _docstring(model: type[BaseModel], *field: str) -> str:
    """The docstring of a model, or of one of its fields, as its own class has it; empty where there is none."""
    found = _module(model.__module__).get_member(model.__qualname__)
    for name in field:
        found = found.members.get(name)
    return found.docstring.value if found is not None and found.docstring is not None else ""


@functools.cache
def _module(name: str) -> griffe.Module:
    path = Path(str(sys.modules[name].__file__))
    return griffe.visit(name, path, path.read_text(encoding="utf-8"))
