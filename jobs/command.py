"""What every job does at its edge: read arguments and configuration, end with one clear word and an exit code."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import logging
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

Config = TypeVar("Config", bound=BaseModel)


#: What libraries say at a job's terminal; MLflow's and Petastorm's daily words would hide the job's own.
QUIET = {"py4j": logging.ERROR, "petastorm": logging.ERROR, "mlflow": logging.WARNING, "alembic": logging.WARNING}

#: MLflow's own defaults wait several minutes for a server that is not there.
MLFLOW_DEFAULTS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


#: How launchers tell a process how many there are, and which one it is: torchrun, Open MPI's mpirun, other MPIs', srun.
LAUNCHERS = (
    ("WORLD_SIZE", "RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


class ConfigError(ValueError):
    """A configuration that cannot be used: which file, which key, what to do."""


class _LauncherError(io.TextIOBase):
    """The standard error of ``spark-submit``, which joins both streams of the Python that it starts into its own standard output."""

    def write(self, text: str) -> int:
        """Write through the JVM, whose standard error is the terminal's."""
        from pyspark import SparkContext  # jobs that train and serve do without Spark

        try:
            SparkContext._ensure_initialized()
            assert SparkContext._jvm is not None
            SparkContext._jvm.java.lang.System.err.print(text)
        except Exception:  # noqa: BLE001 - the JVM has ended, or is about to
            assert sys.__stderr__ is not None
            sys.__stderr__.write(text)
        return len(text)


def parser(description: str, *, config: str | None = None) -> argparse.ArgumentParser:
    """An argument parser; with ``config`` (an example path) it takes ``--config FILE`` and ``key=value`` overrides."""
    if "PYSPARK_GATEWAY_PORT" in os.environ and sys.stderr is sys.__stderr__:
        sys.stderr = _LauncherError()
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if config is not None:
        result.add_argument("--config", required=True, metavar="FILE", help=f"YAML configuration, such as {config}")
        result.add_argument(
            "overrides",
            nargs="*",
            metavar="KEY=VALUE",
            help="values that replace those of the file; dots reach inside: history.length=50",
        )
    return result


def refuse_other_launchers(ranks: int) -> None:
    """See that the processes that a launcher started know of each other; each would do the whole job for itself, in one folder.

    Args:
        ranks: how many Horovod knows of.

    Raises:
        ConfigError: a launcher other than Horovod's started several.
    """
    for size, rank in LAUNCHERS:
        count = os.environ.get(size, "1")
        if ranks == 1 and "HOROVOD_RANK" not in os.environ and rank in os.environ and count.isdecimal() and int(count) > 1:
            raise ConfigError(
                f"{size}={count} and {rank}={os.environ[rank]}: a launcher that Horovod does not know started {count} processes, and none "
                f"knows of the others; start it by `horovodrun -np {count} python ...`, or, for one process, unset {size}"
            )


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


def run(job: Callable[[], None], errors: tuple[type[Exception], ...]) -> int:
    """Run a job; an error of the listed kinds ends it with its message alone.

    Returns:
        0 when the job is done, 1 after such an error. Any other error is a defect and keeps its traceback.
    """
    errors = (ConfigError, *errors)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for chatty, level in QUIET.items():
        logging.getLogger(chatty).setLevel(level)
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        job()
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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
