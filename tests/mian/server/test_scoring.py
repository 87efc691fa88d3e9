"""What a server answers to requests as they should be, and to those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mian.serving import load_servable
from mian.serving.explanation import explain
from tests.mian.server.conftest import as_json, expected
from tests.support.ranking_server import RankingServer

pytestmark = pytest.mark.e2e


def test_scores_are_those_of_the_model(server: RankingServer, servable: Path, request_body: dict[str, Any]) -> None:
    answer = server.post(request_body | {"request_id": "a"})
    assert answer.status_code == 200
    assert answer.json()["request_id"] == "a"
    assert (answer.json()["model"], answer.json()["version"]) == tuple(
        server.get("/version").json()[key] for key in ("model", "version")
    )
    scores = expected(servable, request_body)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_allclose(answer.json()["probabilities"], scores, atol=1e-7)


def test_histories_of_any_length_up_to_the_limit_are_taken(
    server: RankingServer, servable: Path, request_body: dict[str, Any]
) -> None:
    for length in (0, 1, 6, 7, 300, 400):
        values = {"item_id": ["i1"] * length, "category": ["c1"] * length, "hours_ago": [1.0] * length}
        body = request_body | {"behaviors": values}
        np.testing.assert_allclose(server.post(body).json()["probabilities"], expected(servable, body), atol=1e-7)
    without = {name: values for name, values in request_body.items() if name != "behaviors"}
    np.testing.assert_allclose(server.post(without).json()["probabilities"], expected(servable, without), atol=1e-7)


def test_the_context_may_differ_by_candidate(server: RankingServer, servable: Path, request_body: dict[str, Any]) -> None:
    body = request_body | {"candidate_context": {"slot": [1, 2, None]}}
    np.testing.assert_allclose(server.post(body).json()["probabilities"], expected(servable, body), atol=1e-7)


def test_explanations_are_those_of_whole_rows(server: RankingServer, servable: Path, request_body: dict[str, Any]) -> None:
    import pandas as pd

    answer = server.post(request_body | {"explain": True}).json()
    np.testing.assert_allclose(answer["probabilities"], expected(servable, request_body), atol=1e-7)
    rows = [
        {f"{group}_{name}": value for group in ("user", "context") for name, value in request_body[group].items()}
        | {f"behavior_{name}": values for name, values in request_body["behaviors"].items()}
        | {f"candidate_{name}": values[place] for name, values in request_body["candidates"].items()}
        for place in range(3)
    ]
    tables = explain(load_servable(servable), pd.DataFrame(rows))
    assert len(answer["explanations"]) == len(tables)
    for lines, table in zip(answer["explanations"], tables, strict=True):
        assert [(line["module"], line["name"]) for line in lines] == list(zip(table["module"], table["name"], strict=True))
        np.testing.assert_allclose([line["weight"] for line in lines], table["weight"], atol=1e-6)
    assert answer["explanations"][0][0]["value"] == {"item_id": "i1", "category": "c1", "hours_ago": 0.5}


def test_requests_without_an_id_get_one(server: RankingServer, request_body: dict[str, Any]) -> None:
    first, second = (server.post(request_body).json()["request_id"] for _ in range(2))
    assert first and first != second


CANDIDATES = {"item_id": ["i3"], "category": ["c3"], "price": [1]}
WRONG: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("a missing field", {"user": {"age": "20s"}}, "user.visits", "visits missing"),
    ("an unknown field", {"user": {"age": 1, "visits": 1, "agee": 2}}, "user.agee", "no field 'agee'"),
    ("text for a number", {"candidates": CANDIDATES | {"price": ["cheap"]}}, "candidates.price", "a number is needed"),
    ("an object for an id", {"candidates": CANDIDATES | {"item_id": [{}]}}, "candidates.item_id", "an id is text"),
    ("a value for a list", {"candidates": CANDIDATES | {"price": 3}}, "candidates.price", "a list is needed, got a number"),
    ("lists of other lengths", {"candidates": CANDIDATES | {"price": [1, 2]}}, "candidates", "of one length"),
    ("no candidates", {"candidates": {"item_id": [], "category": [], "price": []}}, "candidates", "give at least one"),
    ("a list for a group", {"user": []}, "user", "Expected `object`"),
    ("an unknown key", {"users": {}}, "users", "users: a request has no such key; it has candidates, user"),
    ("a request to another server", {"dataframe_split": {}}, "dataframe_split", "that is a request to `mlflow models serve`"),
    ("a float that is no id", {"user": {"age": 2.0**53, "visits": 1}}, "user.age", "give it as text"),
    ("too long an id", {"request_id": "x" * 201}, "request_id", "at most 200"),
    ("too many candidates", {"candidates": {name: [1] * 301 for name in CANDIDATES}}, "candidates.item_id", "at most 300"),
    ("too long a history", {"behaviors": {"item_id": [1] * 401}}, "behaviors.item_id", "at most 400"),
    (
        "too many to explain",
        {"candidates": {name: [1] * 4 for name in CANDIDATES}, "explain": True},
        "candidates.item_id",
        "at most 3",
    ),
]


@pytest.mark.parametrize(("change", "field", "reason"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_request_is_told_where_and_why(
    server: RankingServer, request_body: dict[str, Any], change: dict[str, Any], field: str | None, reason: str
) -> None:
    answer = server.post(request_body | change)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert reason in answer.json()["error"]


def test_other_methods_types_and_paths_are_refused(server: RankingServer, request_body: dict[str, Any]) -> None:
    assert server.get("/v1/score").status_code == 405
    assert server.get("/v1/score").headers["allow"] == "POST"
    assert server.post(as_json(request_body), headers={"content-type": "text/plain"}).status_code == 415
    assert server.get("/v1/other").status_code == 404


def test_what_a_request_may_hold_can_be_asked_for(server: RankingServer) -> None:
    version = server.get("/version").json()
    assert version["fields"]["candidate"] == [
        {"name": "item_id", "kind": "text"},
        {"name": "category", "kind": "text"},
        {"name": "price", "kind": "number"},
    ]
    assert version["limits"]["candidates"] == 300
    assert version["engine"] in ("onnx", "torch")
    document = server.get("/openapi.json").json()
    example = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert server.post(example).status_code == 200


def test_answers_are_counted(server: RankingServer, request_body: dict[str, Any]) -> None:
    before = server.metrics()
    server.post(request_body)
    server.post(b"{")
    after = server.metrics()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more('mian_requests_total{status="200"}') == 1
    assert more('mian_requests_total{status="400"}') == 1
    assert more("mian_candidates_total") == 3
    assert more("mian_request_seconds_count") == 1
    assert after["mian_requests_in_progress"] == 0
