"""Looks from time to time whether there is another model, and has it answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from mian.scoring.servable_files import ServableError
from mian.server.loaded_model import LoadedModel, load_model
from mian.server.model_files import ModelFiles, SourceError
from mian.server.settings import Engine
from mian.server.state import ServerState

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3_600.0
"""Seconds after which a version that cannot be used is tried again; twice as many after each attempt, up to the second number."""


def fetch_model(files: ModelFiles, engine: Engine, unless: Collection[str] = ()) -> LoadedModel | None:
    """The present model of a place; None where that is one of the versions ``unless``.

    Raises:
        SourceError: there is none, or it cannot be used.
    """
    with files.fetch(unless) as fetched:
        if fetched is None:
            return None
        try:
            return load_model(fetched.folder, fetched.name, fetched.version, engine)
        except Exception as error:  # a graph, weights or a contract of any kind of damage
            kind = "" if isinstance(error, (ServableError, OSError)) else f"{type(error).__name__}: "
            raise SourceError(f"{fetched.name} version {fetched.version}: {kind}{error}", "broken", fetched.version) from error


class Reloader:
    """A thread that looks every few seconds; a look that fails changes nothing but the metrics and, once, the server's log.

    Args:
        state: whose model is replaced.
        files: where models come from.
    """

    def __init__(self, state: ServerState, files: ModelFiles) -> None:
        self._state = state
        self._files = files
        self._stop = threading.Event()
        self._said: tuple[str, str | None] | None = None
        self._broken: str | None = None
        self._pause = FIRST_PAUSE
        self._retry = 0.0
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        """Begin to look, unless reloads are off."""
        if self._state.settings.reload_seconds > 0:
            self._thread.start()

    def stop(self) -> None:
        """End; a reload that is under way is broken off."""
        self._stop.set()
        self._files.stop()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def look(self) -> None:
        """Look once."""
        known = {self._state.model.version}
        if self._broken is not None and time.monotonic() < self._retry:
            known.add(self._broken)
        try:
            model = fetch_model(self._files, self._state.settings.engine, known)
        except Exception as error:  # noqa: BLE001 - a full disk, an answer of another form: the thread looks again
            if not self._stop.is_set():
                known_error = (
                    error if isinstance(error, SourceError) else SourceError(f"{type(error).__name__}: {error}", "store")
                )
                self._note(known_error)
            return
        self._state.metrics.last_look.set_to_current_time()
        if model is not None:
            self._state.use(model)
            self._state.metrics.reloads.inc()
            self._broken = self._said = None
            log.info("now answers: %s version %s (%s)", model.name, model.version, model.engine)
        elif self._broken not in known:
            self._said = None  # the store answers again

    def _run(self) -> None:
        while not self._stop.wait(self._state.settings.reload_seconds):
            self.look()

    def _note(self, error: SourceError) -> None:
        self._state.metrics.reload_failures.labels(error.reason).inc()
        if error.reason == "broken":
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if error.version == self._broken else FIRST_PAUSE
            self._broken = error.version
            self._retry = time.monotonic() + self._pause
        if (error.reason, error.version) != self._said:
            log.error("reload: %s; version %s answers on", error, self._state.model.version)
        self._said = (error.reason, error.version)
