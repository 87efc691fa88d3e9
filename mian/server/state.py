"""What all requests of a server share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mian.server.loaded_model import LoadedModel
from mian.server.metrics import ServerMetrics
from mian.server.request_log import RequestLog
from mian.server.settings import ServerSettings


class ServerState:
    """The model that answers, and what is counted.

    Args:
        settings: of the server.
        model: the first model.

    Attributes:
        settings: see above.
        model: another model takes its place by one assignment; a request keeps the one that it began with.
        draining: whether the server is about to end.
        in_progress: requests that are read, waiting or scored; changed by the event loop alone, as are the next two.
        waiting: requests that are read, and wait or are scored.
        body_bytes: of bodies that arrive.
        metrics: what is counted.
        scoring: the threads that score; a request waits for one.
        log: of requests; None writes none.
    """

    def __init__(self, settings: ServerSettings, model: LoadedModel) -> None:
        self.settings = settings
        self.draining = False
        self.in_progress = self.waiting = self.body_bytes = 0
        self.metrics = ServerMetrics(lambda: self.in_progress)
        self.scoring = ThreadPoolExecutor(settings.threads, thread_name_prefix="scoring")
        self.log = RequestLog(settings.log, self.metrics) if settings.log.folder is not None else None
        self.use(model)

    def use(self, model: LoadedModel) -> None:
        """Have a model answer all requests that begin from now on."""
        self.model = model
        self.metrics.loaded(model.name, model.version, model.engine, model.loaded.timestamp())

    def close(self) -> None:
        """End the threads; waiting log rows are written."""
        self.scoring.shutdown(cancel_futures=True)
        if self.log is not None:
            self.log.close()
