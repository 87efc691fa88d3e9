"""What a ranking server counts, in the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
disable_created_metrics()  # type: ignore[no-untyped-call]
_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ServerMetrics:
    """Counters of one server; each has the prefix ``mian_``.

    Args:
        in_progress: how many requests are read, waiting or scored now.
    """

    def __init__(self, in_progress: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "mian_requests", "Answers of POST /v1/score by status; 499: the client went away", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "mian_request_seconds", "From a request's head to its answer, of those scored", buckets=_SECONDS, registry=registry
        )
        self.candidates = Counter("mian_candidates", "Candidates scored", registry=registry)
        self.refused_connections = Counter(
            "mian_refused_connections", "Connections beyond those that may be open", registry=registry
        )
        self.last_look = Gauge(
            "mian_last_look_timestamp_seconds", "When the place of the model last answered which one it has", registry=registry
        )
        self.reloads = Counter("mian_reloads", "Models that took the place of another one", registry=registry)
        self.reload_failures = Counter("mian_reload_failures", "Looks and reloads that failed", ["reason"], registry=registry)
        self.last_reload = Gauge("mian_last_reload_timestamp_seconds", "When the present model was loaded", registry=registry)
        self.logged = Counter("mian_logged_requests", "Requests written to the log", registry=registry)
        self.log_dropped = Counter(
            "mian_log_dropped_requests", "Requests drawn for the log that are not in it", registry=registry
        )
        self.log_failures = Counter("mian_log_failures", "Log files that could not be written", registry=registry)
        self._model = Gauge("mian_model_info", "1 for the model that answers", ["model", "version", "engine"], registry=registry)
        Gauge("mian_requests_in_progress", "Requests that are read, waiting or scored", registry=registry).set_function(
            in_progress
        )
        for reason in ("store", "missing", "broken"):
            self.reload_failures.labels(reason)

    def loaded(self, name: str, version: str, engine: str, when: float) -> None:
        """Name the model that answers from now on."""
        self._model.clear()
        self._model.labels(name, version, engine).set(1)
        self.last_reload.set(when)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
