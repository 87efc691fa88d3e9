"""The body of ``POST /v1/score``: read, and refused where it is none."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from mian.scoring.raw_values import ServingInputError
from mian.server.settings import Limits

LONGEST_ID = 200
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")
_OF_MLFLOW = {"dataframe_split", "dataframe_records", "instances", "inputs", "params"}
"""Characters of a request's id."""
_PLACE = re.compile(r" - at `\$\.?(?P<field>\w*)")


class ScoreRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One user and N candidates, of raw values by name of their field.

    Attributes:
        user: a value a field.
        context: a value a field.
        behaviors: a list a field, the most recent first.
        candidates: a list of N values a field.
        candidate_context: lists of N values for fields of the context that differ by candidate.
        explain: whether to say what the model looked at.
        request_id: comes back in the answer; one is drawn where none is given.
    """

    candidates: dict[str, Any]
    user: dict[str, Any] = {}
    context: dict[str, Any] = {}
    behaviors: dict[str, Any] = {}
    candidate_context: dict[str, Any] | None = None
    explain: bool = False
    request_id: str | None = None


_decoder = msgspec.json.Decoder(ScoreRequest)


def read_request(body: bytes, limits: Limits) -> ScoreRequest:
    """Decode a body.

    Args:
        body: JSON.
        limits: of candidates and history.

    Raises:
        ServingInputError: it is no such request; ``field`` says where, as far as that is known.
    """
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown is not None:
            raise ServingInputError(_unknown_key(unknown["key"]), unknown["key"]) from error
        place = _PLACE.search(str(error))
        raise ServingInputError(str(error), place["field"] if place is not None and place["field"] else None) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServingInputError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise ServingInputError("the body is nested too deep") from error
    if request.request_id is not None and len(request.request_id) > LONGEST_ID:
        raise ServingInputError(f"request_id: at most {LONGEST_ID} characters", "request_id")
    most = limits.explained if request.explain else limits.candidates
    _check_lists("candidates", request.candidates, most)
    _check_lists("candidate_context", request.candidate_context or {}, most)
    _check_lists("behaviors", request.behaviors, limits.history)
    return request


def _unknown_key(key: str) -> str:
    keys = ", ".join(ScoreRequest.__struct_fields__)
    hint = "; that is a request to `mlflow models serve`" if key in _OF_MLFLOW else ""
    return f"{key}: a request has no such key{hint}; it has {keys}"


def _check_lists(group: str, lists: dict[str, Any], most: int) -> None:
    for name, values in lists.items():
        if type(values) is not list:
            raise ServingInputError(f"{group}.{name}: a list is needed, got {_json_type(values)}", f"{group}.{name}")
        if len(values) > most:
            raise ServingInputError(f"{group}.{name}: {len(values)} values; at most {most} are taken", f"{group}.{name}")


def _json_type(value: Any) -> str:
    names = {dict: "an object", str: "text", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names[type(value)]
