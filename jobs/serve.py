"""Serve a model: ``python jobs/serve.py --model models:/mian@champion --port 8080``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import command
from jobs.errors import ConfigError
from mian.server.run import serve
from mian.server.settings import Limits, LogSettings, ServerError, ServerSettings
from mian.tracking.errors import TrackingError

ERRORS = (ServerError, TrackingError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments and answer requests until SIGTERM or SIGINT; 0 then, 1 with one clear error where it cannot start."""
    parser = command.parser(
        "Answers POST /v1/score: one user and N candidates, a probability for each. GET /health, /ready, /version, /metrics\n"
        "and /openapi.json say how it is. When the alias moves, the new model answers without a pause."
    )
    _add_arguments(parser)
    return command.run(lambda: serve(_settings(parser.parse_args(arguments))), ERRORS)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults, limits, log = ServerSettings(""), Limits(), LogSettings()
    add = parser.add_argument
    add("--model", required=True, help="models:/mian@champion, models:/mian/3, or the folder of a servable")
    add("--tracking-uri", help="of the registry; MLFLOW_TRACKING_URI where it is not given")
    add("--host", default=defaults.host, help="address to listen at; %(default)s. The server has no authentication")
    add("--port", type=int, default=defaults.port, help="port to listen at; %(default)s. 0 takes a free one, which the log names")
    add(
        "--engine", choices=("auto", "onnx", "torch"), default="auto", help="auto is ONNX where the model has a graph, else torch"
    )
    add("--threads", type=int, default=defaults.threads, help="requests scored at a time, each on one core; %(default)s")
    add(
        "--reload-seconds",
        type=float,
        default=defaults.reload_seconds,
        help="between two looks for another model; %(default)s, 0 never",
    )
    add("--drain-seconds", type=float, default=defaults.drain_seconds, help="after SIGTERM, while /ready is 503; %(default)s")
    add("--max-body-bytes", type=int, default=limits.body_bytes, help="of a request, else 413; %(default)s")
    add("--max-candidates", type=int, default=limits.candidates, help="of a request, else 400; %(default)s")
    add("--max-history", type=int, default=limits.history, help="behaviors of a request, else 400; %(default)s")
    add("--max-explained", type=int, default=limits.explained, help="candidates of a request with explain, else 400; %(default)s")
    add("--max-waiting", type=int, default=limits.waiting, help="requests beside those that are scored, else 503; %(default)s")
    add("--max-seconds", type=float, default=limits.seconds, help="for a body, else 408, and its score, else 503; %(default)s")
    add("--max-connections", type=int, default=limits.connections, help="open at a time, else 503; %(default)s")
    add("--log-requests", type=float, default=log.fraction, metavar="SHARE", help="of requests that are logged, such as 0.01")
    add("--log-folder", type=Path, help="where their Parquet files go")
    add("--log-rows", type=int, default=log.rows, help="of a file at most; %(default)s")
    add("--log-seconds", type=float, default=log.seconds, help="that a row waits for its file at most; %(default)s")


def _settings(given: argparse.Namespace) -> ServerSettings:
    """The arguments, checked.

    Raises:
        ConfigError: a number that makes no sense, or a log without a folder.
    """
    most = {name.removeprefix("max_"): value for name, value in vars(given).items() if name.startswith("max_")}
    for name, value in (
        *most.items(),
        ("threads", given.threads),
        ("log_rows", given.log_rows),
        ("log_seconds", given.log_seconds),
    ):
        least = "0 or more" if name == "waiting" else "more than 0"
        if not 0 <= value < math.inf or (value == 0 and name != "waiting"):
            raise ConfigError(f"--{'max-' if name in most else ''}{name.replace('_', '-')}: {value} is no limit; give {least}")
    for name in ("reload_seconds", "drain_seconds"):
        if not 0 <= vars(given)[name] < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')}: {vars(given)[name]} is no time; give 0 or more seconds")
    if not 0 <= given.log_requests <= 1:
        raise ConfigError(f"--log-requests: {given.log_requests} is no share; give a number between 0 and 1")
    if given.log_requests and given.log_folder is None:
        raise ConfigError("--log-requests: there is nowhere to write them; give --log-folder")
    if given.log_requests:
        try:
            given.log_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--log-folder: {error}; give a folder that can be written") from error
    log = LogSettings(given.log_requests, given.log_folder if given.log_requests else None, given.log_rows, given.log_seconds)
    return ServerSettings(
        given.model,
        given.tracking_uri,
        given.host,
        given.port,
        given.engine,
        given.threads,
        given.reload_seconds,
        given.drain_seconds,
        Limits(**most),
        log,
    )


if __name__ == "__main__":
    sys.exit(main())
