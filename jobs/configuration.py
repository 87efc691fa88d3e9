"""YAML files of jobs: read, overridden from the command line, checked."""

from __future__ import annotations

import difflib
import json
import pathlib
import tempfile
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from jobs.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


__all__ = ["ConfigError", "load_config"]


def load_config(model: type[Config], path: str, overrides: Sequence[str] = (), inside: str | None = None) -> Config:
    """Read a YAML file, apply overrides, check it.

    Args:
        model: what the file must look like.
        path: the file; ``${...}`` interpolates as OmegaConf does, ``${oc.env:NAME}`` reads the environment.
        overrides: ``key=value``, dots reach inside.
        inside: a key of the file, whose value is the configuration; None: all of the file is.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest known one is named), a wrong value.
    """
    whole = [_whole(override) for override in overrides]
    try:
        loaded = OmegaConf.load(path)
        merged = OmegaConf.merge(loaded if inside is None else OmegaConf.select(loaded, inside), OmegaConf.from_dotlist(whole))
        values = OmegaConf.to_container(merged, resolve=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (YAMLError, OmegaConfBaseException, OSError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            f"{path}: " + "; ".join(_explain(model, e["type"], e["loc"], e["msg"]) for e in error.errors())
        ) from error


def check_output_file(option: str, path: str, endings: Sequence[str]) -> None:
    """See that a file can be written, before the work that it is to hold the result of.

    Args:
        option: Which option of the command line names it.
        path: A local file; its folder is made.
        endings: What its name may end in.

    Raises:
        ConfigError: The name ends otherwise, it is a folder's, or nothing can be written beside it.
    """
    target = pathlib.Path(path)
    if target.suffix.lower() not in endings:
        raise ConfigError(f"{option}: {path} does not end in {' or '.join(endings)}; give a name that does")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option}: {path} cannot be written: {error}; give a file in a folder that you may write to"
        ) from error
    if target.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; give the name of a file")


def _whole(override: str) -> str:
    """An override whose value YAML takes whole: in plain text, such as a path, a ``#`` would begin a comment.

    Raises:
        ConfigError: it is not ``KEY=VALUE``, or holds a comment behind a quoted text, a list or a mapping.
    """
    key, sign, value = override.partition("=")
    if not sign:
        raise ConfigError(f"override {override!r} is not KEY=VALUE")
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except YAMLError:
        return override  # OmegaConf says what is wrong with it
    read = node.end_mark.index if node is not None else 0
    if not value[read:].strip():
        return override
    if node is None or (isinstance(node, yaml.ScalarNode) and node.style is None):
        return f"{key}={json.dumps(value, ensure_ascii=False)}"
    raise ConfigError(
        f"override {override!r}: YAML takes {value[read:].strip()!r} for a comment; quote the text that holds the #"
    )


def _explain(model: type[BaseModel], kind: str, location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location)
    if kind != "extra_forbidden":
        return f"{where or 'the file'}: {message}"
    known = _known_keys(model, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
    return f"unknown key {where!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys(annotation: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that a configuration type knows at a place inside it."""
    models = [t for t in _alternatives(annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
    if not location:
        return sorted({field.alias or name for m in models for name, field in m.model_fields.items()})
    part, rest = location[0], location[1:]
    for m in models:
        for name, field in m.model_fields.items():
            if part in (name, field.alias):
                return _known_keys(field.annotation, rest)
    inside = [arg for t in _alternatives(annotation) for arg in typing.get_args(t)]  # list[X], dict[str, X]
    return sorted({key for arg in inside for key in _known_keys(arg, rest)})


def _alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [t for arg in typing.get_args(annotation) for t in _alternatives(arg)]
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    return [annotation]
