"""What a ranking server is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Engine = Literal["auto", "onnx", "torch"]


class ServerError(RuntimeError):
    """The server cannot start: the port is taken, or the model cannot be loaded."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for; more is refused.

    Attributes:
        body_bytes: of a request's body; more is answered by 413.
        candidates: of a request; more is answered by 400.
        history: entries of each list of behaviors; more is answered by 400. Of fewer, those beyond the model's history are left out.
        explained: candidates of a request that asks for an explanation; more is answered by 400.
        waiting: requests that have arrived, beside those that are scored; one more is answered by 503.
        seconds: from a request's first byte to its answer: a body that takes longer is answered by 408, a score by 503.
        connections: open at a time; a further one is answered by 503 and closed, whatever it asks for.
    """

    body_bytes: int = 1_048_576
    candidates: int = 1_000
    history: int = 1_000
    explained: int = 20
    waiting: int = 64
    seconds: float = 10.0
    connections: int = 1_000


@dataclass(frozen=True)
class LogSettings:
    """The sample of served requests.

    Attributes:
        fraction: of the requests, between 0 and 1.
        folder: where the files lie; None writes none.
        rows: a file is written when so many rows wait,
        seconds: or when the first of them has waited so long.
    """

    fraction: float = 0.0
    folder: Path | None = None
    rows: int = 1_000
    seconds: float = 60.0


@dataclass(frozen=True)
class ServerSettings:
    """All of it.

    Attributes:
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or the folder of a servable.
        tracking_uri: of the registry; None takes ``MLFLOW_TRACKING_URI``.
        host: the address to listen at.
        port: 0 takes any free one.
        engine: ``auto`` is ONNX where the servable has a graph, else torch.
        threads: requests scored at a time, each by one compute thread.
        reload_seconds: between two looks whether there is another model; 0 never looks.
        drain_seconds: from SIGTERM on, requests are still taken for so long while ``/ready`` answers 503.
        limits: of requests.
        log: of requests.
    """

    model: str
    tracking_uri: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    engine: Engine = "auto"
    threads: int = 1
    reload_seconds: float = 30.0
    drain_seconds: float = 0.0
    limits: Limits = field(default_factory=Limits)
    log: LogSettings = field(default_factory=LogSettings)
