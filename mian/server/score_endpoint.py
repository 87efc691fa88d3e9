"""``POST /v1/score``: reads a request, has it scored by a thread, and answers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
from starlette.types import Message, Receive, Scope, Send

from mian.scoring.raw_values import ServingInputError
from mian.server.loaded_model import LoadedModel
from mian.server.score_request import ScoreRequest, read_request
from mian.server.state import ServerState

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""The status under which a request is counted whose client did not wait for the answer."""
RETRY = ((b"retry-after", b"1"),)
LONGEST_ERROR = 500


class ScoreAnswer(msgspec.Struct, omit_defaults=True):
    """The body of an answer.

    Attributes:
        probabilities: of a click, a number for each candidate.
        model: see :class:`mian.server.loaded_model.LoadedModel`, likewise ``version``.
        request_id: of the request.
        explanations: for each candidate the lines of its explanation, where it was asked for.
    """

    probabilities: list[float]
    model: str
    version: str
    request_id: str
    explanations: list[list[dict[str, Any]]] | None = None


class RequestRefusedError(Exception):
    """A request that gets no scores.

    Args:
        status: of the answer.
        message: what is wrong and what to do.
        field: where in the request.
        headers: of the answer.
    """

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.headers = headers

    def body(self) -> bytes:
        """The answer's body."""
        return msgspec.json.encode(
            {"error": str(self)[:LONGEST_ERROR], "field": None if self.field is None else self.field[:100]}
        )


class ClientGoneError(Exception):
    """The client closed the connection."""


class ScoreEndpoint:
    """The ASGI application of one path.

    Args:
        state: of the server.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        state = self._state
        started = time.monotonic()
        headers: tuple[tuple[bytes, bytes], ...] = ()
        state.in_progress += 1
        try:
            body = await self._answer(scope, receive, started)
            status = 200
            state.metrics.seconds.observe(time.monotonic() - started)
        except RequestRefusedError as refused:
            status, body, headers = refused.status, refused.body(), refused.headers
        except ClientGoneError:
            status, body = CLIENT_GONE, b""
        except Exception:
            status, body = 500, RequestRefusedError(500, "the server failed; its log says why").body()
            log.exception("a request failed")
        finally:
            state.in_progress -= 1
        state.metrics.requests.labels(str(status)).inc()
        if state.draining:
            headers = (*headers, (b"connection", b"close"))
        if status != CLIENT_GONE:
            await respond(send, status, body, headers)

    async def _answer(self, scope: Scope, receive: Receive, started: float) -> bytes:
        state, limits = self._state, self._state.settings.limits
        check_head(scope, limits.body_bytes)
        self._check_room()
        model = state.model
        try:
            with anyio.fail_after(limits.seconds):
                body = await self._read_body(receive)
        except TimeoutError as error:
            raise RequestRefusedError(408, f"the body took longer than {limits.seconds:g} s") from error
        self._check_room()
        state.waiting += 1
        try:
            return await self._wait_for_score(model, body, receive, started + limits.seconds)
        finally:
            state.waiting -= 1

    def _check_room(self) -> None:
        limits = self._state.settings.limits
        if self._state.waiting >= limits.waiting + self._state.settings.threads:
            raise RequestRefusedError(503, f"{limits.waiting} requests are waiting already; try again", headers=RETRY)

    async def _read_body(self, receive: Receive) -> bytes:
        """The whole body; those of all requests that arrive are no larger together than those that may wait."""
        limits = self._state.settings.limits
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message: Message = await receive()
                if message["type"] != "http.request":
                    raise ClientGoneError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self._state.body_bytes += len(parts[-1])
                if size > limits.body_bytes:
                    raise RequestRefusedError(413, f"the body has more than {limits.body_bytes} bytes")
                if self._state.body_bytes > (limits.waiting + 1) * limits.body_bytes:
                    raise RequestRefusedError(503, "too many long bodies arrive at a time; try again", headers=RETRY)
                if not message.get("more_body"):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self._state.body_bytes -= size

    async def _wait_for_score(self, model: LoadedModel, body: bytes, receive: Receive, end: float) -> bytes:
        state, limits = self._state, self._state.settings.limits
        loop = asyncio.get_running_loop()
        scored = loop.run_in_executor(state.scoring, self._score, model, body)
        gone = asyncio.ensure_future(receive())  # nothing comes behind the body but the end of the connection
        try:
            await asyncio.wait((scored, gone), timeout=max(end - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED)
            if scored.done():
                return scored.result()
            if gone.done():
                raise ClientGoneError
            raise RequestRefusedError(503, f"no score after {limits.seconds:g} s; try again", headers=RETRY)
        finally:
            gone.cancel()
            scored.cancel()  # one that waits for its thread is left out

    def _score(self, model: LoadedModel, body: bytes) -> bytes:
        """In a scoring thread: from a body to the answer's."""
        try:
            request = read_request(body, self._state.settings.limits)
            probabilities = model.score(request)
            explanations = model.explain(request) if request.explain else None
        except ServingInputError as error:
            raise RequestRefusedError(400, str(error), error.field) from error
        request_id = request.request_id or uuid.uuid4().hex
        self._state.metrics.candidates.inc(len(probabilities))
        requests = self._state.log
        if requests is not None and requests.drawn():
            self._log(request, request_id, model, probabilities)
        return msgspec.json.encode(ScoreAnswer(probabilities.tolist(), model.name, model.version, request_id, explanations))

    def _log(self, request: ScoreRequest, request_id: str, model: LoadedModel, probabilities: Any) -> None:
        assert self._state.log is not None
        self._state.log.add(request, request_id, (model.name, model.version, model.engine), probabilities)


def check_head(scope: Scope, most_bytes: int) -> None:
    """Refuse what the method and the headers of a request say already.

    Raises:
        RequestRefusedError: another method than POST, another type than JSON, or too long a body.
    """
    if scope["method"] != "POST":
        raise RequestRefusedError(405, f"{scope['method']} is not taken here; POST is", headers=((b"allow", b"POST"),))
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise RequestRefusedError(415, "the body must be JSON; send the header content-type: application/json")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > most_bytes:
        raise RequestRefusedError(413, f"the body has {int(length)} bytes; at most {most_bytes} are taken")


async def respond(send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Send an answer of JSON."""
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json"), length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
