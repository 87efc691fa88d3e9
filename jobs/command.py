"""What every job does at its edge: read arguments and configuration, end with one clear word and an exit code."""

from __future__ import annotations

import argparse
import datetime as dt
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from jobs.errors import ConfigError
from mian.tracking.client_defaults import CLIENT_DEFAULTS

#: What libraries say at a job's terminal; MLflow's and Petastorm's daily words would hide the job's own.
QUIET = {"py4j": logging.ERROR, "petastorm": logging.ERROR, "mlflow": logging.WARNING, "alembic": logging.WARNING}

#: Exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130

#: How launchers tell a process how many there are, and which one it is: torchrun, Open MPI's mpirun, other MPIs', srun.
LAUNCHERS = (
    ("WORLD_SIZE", "RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


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


class _Parser(argparse.ArgumentParser):
    """An argument parser whose exit code after wrong arguments can be chosen."""

    usage_exit = 2

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(self.usage_exit if status else 0, message)


def parser(description: str, *, config: str | None = None, usage_exit: int = 2) -> argparse.ArgumentParser:
    """An argument parser; with ``config`` (an example path) it takes ``--config FILE`` and ``key=value`` overrides.

    Args:
        description: What the job does.
        config: An example of a path.
        usage_exit: Exit code after wrong arguments, of a job to which 2 means something else.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ and sys.stderr is sys.__stderr__:
        sys.stderr = _LauncherError()
    result = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.usage_exit = usage_exit
    if config is not None:
        result.add_argument("--config", required=True, metavar="FILE", help=f"YAML configuration, such as {config}")
        result.add_argument(
            "overrides",
            nargs="*",
            metavar="KEY=VALUE",
            help="values that replace those of the file; dots reach inside: history.length=50",
        )
    return result


def day(text: str) -> dt.date:
    """A day as an argument.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write it as in 2026-01-31") from error


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


def run(job: Callable[[], None], errors: tuple[type[Exception], ...]) -> int:
    """Run a job; an error of the listed kinds ends it with its message alone.

    Returns:
        0 when the job is done, 1 after such an error, 130 after Ctrl-C. Any other error is a defect and keeps its traceback.
    """
    errors = (ConfigError, *errors)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for chatty, level in QUIET.items():
        logging.getLogger(chatty).setLevel(level)
    for name, value in CLIENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        job()
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    return 0
