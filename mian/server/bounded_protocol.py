"""HTTP connections that do not wait for ever for a request to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_ERROR = b'{"error":"too many connections; try again","field":null}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ERROR), _ERROR)
)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol for HTTP/1.1, with an end to heads and bodies that arrive slowly, and to connections that send nothing.

    The server's own limit answers slow bodies by 408; this one closes a connection whose head does not come, or whose refused body
    does not end.

    Attributes:
        arrival_seconds: how long a request may take to arrive.
        most_connections: open at a time; a further one is answered by 503 and closed, and those that are open keep on.
        refused: called for each connection that is not taken.
    """

    arrival_seconds = 15.0
    most_connections = 1_000
    refused: Callable[[], None] = staticmethod(lambda: None)
    _arrival: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self.refused()
            transport.write(_FULL)
            transport.close()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Some bytes arrived."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """A request was answered."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection ended."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        idle_after_answer = self.timeout_keep_alive_task is not None and not self.conn.trailing_data[0]
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not idle_after_answer
        if not arriving or self.transport.is_closing():
            self._unwatch()
        elif self._arrival is None:
            self._arrival = self.loop.call_later(self.arrival_seconds, self.transport.close)

    def _unwatch(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
