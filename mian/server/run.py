"""A ranking server from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import sys
from collections.abc import Generator
from types import FrameType

import pyarrow as pa
import uvicorn

from mian.server.application import application
from mian.server.bounded_protocol import BoundedProtocol
from mian.server.model_files import SourceError, model_files
from mian.server.reloader import Reloader, fetch_model
from mian.server.settings import ServerError, ServerSettings
from mian.server.state import ServerState

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75
"""An idle connection is closed then; clients and balancers that keep connections close theirs sooner."""
BACKLOG = 2048
"""Connections that wait to be taken."""
SWITCH_SECONDS = 0.001
"""How long one thread of Python runs while others wait, so that answers go out while a request is encoded."""
_M_ARENA_MAX = -8


def serve(settings: ServerSettings) -> None:
    """Load the model, answer requests until SIGTERM or SIGINT, and answer those that have begun.

    Args:
        settings: of the server.

    Raises:
        ServerError: the port is taken, or the model cannot be loaded.
        TrackingError: the model's address is none.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    _keep_memory_small()
    files = model_files(settings.model, settings.tracking_uri)
    with _listening(settings.host, settings.port) as listener:
        try:
            model = fetch_model(files, settings.engine)
        except SourceError as error:
            raise ServerError(str(error)) from error
        assert model is not None
        _listen(listener)
        state = ServerState(settings, model)
        reloader = Reloader(state, files)
        try:
            reloader.start()
            host, port = listener.getsockname()[:2]
            log.info("ready: %s version %s (%s) on http://%s:%d", model.name, model.version, model.engine, host, port)
            asyncio.run(_Server(state).serve([listener]))
        finally:
            reloader.stop()
            state.close()
    log.info("all requests are answered; the end")


def _leave(number: int, frame: FrameType | None) -> None:
    """End before the first request."""
    sys.exit(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which ends with exit code 0 after a signal and says so to ``/ready`` first."""

    def __init__(self, state: ServerState) -> None:
        limits = state.settings.limits
        bounds = {
            "arrival_seconds": limits.seconds + 1,
            "most_connections": limits.connections,
            "refused": staticmethod(state.metrics.refused_connections.inc),
        }
        protocol = type("Protocol", (BoundedProtocol,), bounds)
        config = uvicorn.Config(
            application(state),
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(limits.seconds) + 5,
        )
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        super().__init__(config)
        self._state = state

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle both signals from now on; while waiting log rows are written, another one changes nothing."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at a second signal at once."""
        seconds = 0.0 if self._state.draining else self._state.settings.drain_seconds
        self._state.draining = True
        if seconds:
            loop = asyncio.get_event_loop()
            loop.call_soon_threadsafe(loop.call_later, seconds, setattr, self, "should_exit", True)
        else:
            self.should_exit = True


@contextlib.contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket, None, None]:
    """A socket that has the port, and takes connections later.

    Raises:
        ServerError: it cannot have it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    ) as listener:  # asyncio sends at once on sockets of that protocol
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ServerError(f"{host}:{port} cannot be listened at: {error}; give another --host or --port") from error
        yield listener


def _listen(listener: socket.socket) -> None:
    """Take connections.

    Raises:
        ServerError: another process that had the port at the same time was sooner.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise ServerError(f"{listener.getsockname()}: cannot be listened at: {error}; give another --port") from error


def _keep_memory_small() -> None:
    """Have threads share memory that was given back, and Arrow and Python take it from one place."""
    sys.setswitchinterval(SWITCH_SECONDS)
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(OSError, AttributeError):  # of the GNU C library alone
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
