"""The paths of a ranking server."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mian.contract.document import GROUPS
from mian.server.metrics import CONTENT_TYPE
from mian.server.openapi import openapi_document
from mian.server.score_endpoint import ScoreEndpoint
from mian.server.state import ServerState

SCORE_PATH = "/v1/score"


def application(state: ServerState) -> ASGIApp:
    """The ASGI application of a server.

    Args:
        state: what its requests share.
    """

    async def health(_: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(_: Request) -> Response:
        return _json({"status": "draining"}, 503) if state.draining else _json({"status": "ready"})

    async def version(_: Request) -> Response:
        return _json(describe(state))

    async def metrics(_: Request) -> Response:
        return Response(state.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def openapi(_: Request) -> Response:
        return _json(openapi_document(state.model, state.settings.limits))

    score = ScoreEndpoint(state)
    routes = [
        Route("/health", health),
        Route("/ready", ready),
        Route("/version", version),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
        Route(SCORE_PATH, score),
    ]
    others = Starlette(routes=routes, exception_handlers={HTTPException: _refused})

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        """The path that nearly all requests have, past what Starlette does for the others."""
        if scope["type"] == "http" and scope["path"] == SCORE_PATH:
            await score(scope, receive, send)
        else:
            await others(scope, receive, send)

    return dispatch


def describe(state: ServerState) -> dict[str, Any]:
    """What ``/version`` says: the model, its fields, and what a request may ask for."""
    model = state.model
    fields = {
        group: [{"name": field.name, "kind": "text" if field.is_text else "number"} for field in model.contract.group(group)]
        for group in GROUPS
    }
    return {
        "uri": state.settings.model,
        "model": model.name,
        "version": model.version,
        "engine": model.engine,
        "contract": model.contract.name,
        "history": model.contract.history.length,
        "fields": fields,
        "stand_ins": dict(model.stand_ins),
        "loaded": model.loaded.isoformat(timespec="seconds"),
        "limits": dataclasses.asdict(state.settings.limits),
    }


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail, "field": None}, error.status_code, error.headers)


def _json(document: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, media_type="application/json")
