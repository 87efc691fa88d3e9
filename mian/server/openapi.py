"""The OpenAPI document of a ranking server, exact for the fields of its model."""

from __future__ import annotations

from typing import Any

from mian.contract import Field
from mian.server.loaded_model import LoadedModel
from mian.server.score_request import LONGEST_ID
from mian.server.settings import Limits

_TEXT = {"type": ["string", "number", "boolean", "null"]}
_NUMBER = {"type": ["number", "null"]}
_REASONS = {
    "400": "the body is no such request; field says where",
    "405": "another method than POST",
    "408": "the body took too long",
    "413": "the body is too long",
    "415": "the body is not JSON by its content-type",
    "503": "too many requests wait, or the score took too long; try again after Retry-After seconds",
}


def openapi_document(model: LoadedModel, limits: Limits) -> dict[str, Any]:
    """The document.

    Args:
        model: the one that answers; its contract names the fields.
        limits: of requests.
    """
    errors = {status: _answer(reason, {"$ref": "#/components/schemas/Error"}) for status, reason in _REASONS.items()}
    errors["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    score = {
        "operationId": "score",
        "summary": "Score N candidates of one user",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _request(model, limits), "example": dict(model.example)}},
        },
        "responses": {"200": _answer("probabilities of a click", _SCORES), **errors},
    }
    paths: dict[str, Any] = {"/v1/score": {"post": score}}
    for path, summary in (
        ("/health", "Whether the process lives"),
        ("/ready", "Whether requests are taken"),
        ("/version", "The model"),
    ):
        paths[path] = {"get": _get(summary, "application/json", {"type": "object"})}
    paths["/ready"]["get"]["responses"]["503"] = _answer("the server is about to end", {"type": "object"})
    paths["/metrics"] = {"get": _get("Counters for Prometheus", "text/plain", {"type": "string"})}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Ranking server of {model.name}", "version": model.version},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


_ERROR = {
    "type": "object",
    "required": ["error", "field"],
    "properties": {"error": {"type": "string"}, "field": {"type": ["string", "null"]}},
}
_SCORES = {
    "type": "object",
    "required": ["probabilities", "model", "version", "request_id"],
    "properties": {
        "probabilities": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "request_id": {"type": "string"},
        "explanations": {"type": "array", "items": {"type": "array", "items": {"type": "object"}}},
    },
}


def _request(model: LoadedModel, limits: Limits) -> dict[str, Any]:
    group = model.contract.group
    replaced = tuple(model.stand_ins)
    behaviors = _lists(group("behaviors"), limits.history)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["candidates", *(name for name in ("user", "context") if _needed(group(name), replaced))],
        "properties": {
            "user": _values(group("user"), ()),
            "context": _values(group("context"), replaced),
            "behaviors": {"anyOf": [behaviors, {"type": "object", "maxProperties": 0}]},
            "candidates": _lists(group("candidate"), limits.candidates, at_least=1),
            "candidate_context": {"anyOf": [{**_lists(group("context"), limits.candidates), "required": []}, {"type": "null"}]},
            "explain": {"type": "boolean", "default": False},
            "request_id": {"type": ["string", "null"], "maxLength": LONGEST_ID},
        },
    }


def _needed(fields: tuple[Field, ...], replaced: tuple[str, ...]) -> list[str]:
    return [field.name for field in fields if field.name not in replaced]


def _values(fields: tuple[Field, ...], replaced: tuple[str, ...]) -> dict[str, Any]:
    properties = {field.name: _TEXT if field.is_text else _NUMBER for field in fields}
    return {"type": "object", "additionalProperties": False, "required": _needed(fields, replaced), "properties": properties}


def _lists(fields: tuple[Field, ...], most: int, at_least: int = 0) -> dict[str, Any]:
    """Lists must be of one length too, which JSON Schema cannot say."""
    document = _values(fields, ())
    entries = {"type": "array", "minItems": at_least, "maxItems": most}
    document["properties"] = {name: {**entries, "items": items} for name, items in document["properties"].items()}
    return document


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}}}}
