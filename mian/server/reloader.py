"""Looks from time to time whether there is another model, and has it answer."""

from __future__ import annotations

import logging
import threading

from mian.scoring.servable_files import ServableError
from mian.server.loaded_model import LoadedModel, load_model
from mian.server.model_files import ModelFiles, SourceError
from mian.server.settings import Engine
from mian.server.state import ServerState

log = logging.getLogger(__name__)

LONGEST_PAUSE = 3_600.0
"""A version that cannot be used is tried again after twice as long each time, but no longer than this, in seconds."""


def fetch_model(files: ModelFiles, engine: Engine, unless: str | None = None) -> LoadedModel | None:
    """The present model of a place; None where that is the version ``unless``.

    Raises:
        SourceError: there is none, or it cannot be used.
    """
    with files.fetch(unless) as fetched:
        if fetched is None:
            return None
        try:
            return load_model(fetched.folder, fetched.name, fetched.version, engine)
        except (ServableError, OSError) as error:
            raise SourceError(f"{fetched.name} {fetched.version}: {error}", "broken") from error


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
        self._said: str | None = None
        self._pause = state.settings.reload_seconds
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

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self.look()

    def look(self) -> None:
        """Look once."""
        usual = self._state.settings.reload_seconds
        try:
            model = fetch_model(self._files, self._state.settings.engine, unless=self._state.model.version)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a new model, the old one answers on
            if self._stop.is_set():
                return
            reason = error.reason if isinstance(error, SourceError) else "broken"
            self._state.metrics.reload_failures.labels(reason).inc()
            self._say(f"{type(error).__name__}: {error}" if not isinstance(error, SourceError) else str(error))
            if reason == "broken":  # it takes a build to find out
                self._pause = min(2 * max(self._pause, usual), max(LONGEST_PAUSE, usual))
            return
        self._pause = usual
        self._said = None
        if model is not None:
            self._state.use(model)
            self._state.metrics.reloads.inc()
            log.info("now answers: %s version %s (%s)", model.name, model.version, model.engine)

    def _say(self, message: str) -> None:
        if message != self._said:
            log.error("reload: %s; version %s answers on", message, self._state.model.version)
        self._said = message
