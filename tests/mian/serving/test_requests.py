"""Odd requests to the scoring server: each is scored as its values were encoded for the training, or refused with a word.

``MIAN_REQUESTS=200`` draws that many instead of a dozen.
"""

import asyncio
import io
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from mlflow.pyfunc.scoring_server import init

from mian.contract import Contract, Encoder, Field, Vocabulary, vocabulary_from_parquet
from mian.contract.canonical import canonical_text
from mian.models import ClickModel
from mian.serving import input_example, load_servable, read_vocabularies
from mian.serving.mlflow_export import log_servable
from tests.factories import make_model, write_contract, write_servable
from tests.mian.serving.conftest import FIELDS, HISTORY, OPTIONS, VALUES, train

REQUESTS = int(os.environ.get("MIAN_REQUESTS", "12"))
HOUR = Field(group="behaviors", name="hour", vocabulary="hour", kind="number")
#: Those of the other tests, hours in buckets, and one of each behavior.
ODD_FIELDS = (*FIELDS[:6], HOUR, FIELDS[6], HOUR.model_copy(update={"group": "context"}))


class Served(NamedTuple):
    """A registered model, what it was made of, its folder before it was registered, and its scoring server."""

    contract: Contract
    model: ClickModel
    encoder: Encoder
    folder: Path
    pyfunc: Any
    app: Any


class Answer(NamedTuple):
    status: int
    text: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Items and ages of a table, categories of a hash, hours of buckets."""
    home = tmp_path_factory.mktemp("requests")
    uri, path = mlflow.get_tracking_uri(), list(sys.path)
    plain = train(home / "samples").contract
    others = {
        "category": Vocabulary(name="category", size=1002, kind="hash"),
        "hour": Vocabulary(name="hour", size=6, kind="buckets", edges=(6.0, 12.0, 18.0)),
    }
    contract = plain.model_copy(
        update={"fields": ODD_FIELDS, "vocabularies": tuple(others.get(v.name, v) for v in plain.vocabularies)}
    )
    write_contract(home / "samples", contract)
    model = make_model(contract, options=OPTIONS)
    contents = read_vocabularies(contract, str(home / "samples"))
    write_servable(home / "servable", model, contract, home / "samples", options=OPTIONS)
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    experiment = mlflow.create_experiment("requests", artifact_location=(home / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        log_servable(home / "servable", input_example(contract, str(home / "samples")), "odd")
    pyfunc = mlflow.pyfunc.load_model("models:/odd/1")
    tables = {name: vocabulary_from_parquet(io.BytesIO(content))["value"] for name, content in contents.items()}
    yield Served(contract, model.eval(), Encoder(contract.vocabularies, tables), home / "servable", pyfunc, init(pyfunc))
    mlflow.set_tracking_uri(uri)
    sys.path[:] = path


def ask(served: Served, request: Mapping[str, Any]) -> Answer:
    """What the scoring server answers to a request over HTTP."""
    body, sent = json.dumps(request).encode(), []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/invocations",
        "raw_path": b"/invocations",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(served.app(scope, receive, send))
    return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode())


def no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def probabilities(answer: Answer) -> list[float]:
    assert answer.status == 200, answer.text
    return [row["probability"] for row in json.loads(answer.text, parse_constant=no_number)["predictions"]]


class RefusedError(Exception):
    """A value that has no encoding."""


def training_value(field: Field, value: Any) -> str | float | None:
    """What a log that holds the value gives the encoder.

    Raises:
        RefusedError: no log of the field's type can hold it.
    """
    if isinstance(value, (dict, list)):
        raise RefusedError
    if value is None or value != value:
        return None
    if not field.is_text:
        if isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) > sys.float_info.max):
            raise RefusedError
        return float(value)
    if isinstance(value, str):
        if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
            raise RefusedError
        return value if len(value.encode()) <= 1000 else None
    if isinstance(value, float):
        if 2**53 <= abs(value) < np.inf:
            raise RefusedError
        (text,) = canonical_text(pa.array([value], pa.float64())).to_pylist()
        return str(text) if text is not None else None
    return str(value).lower()  # whole numbers, true and false


def expected(served: Served, records: Sequence[Mapping[str, Any]]) -> tuple[list[float], set[str]]:
    """The probabilities of the training-time encoding, and the columns that have none."""
    columns: dict[str, list[Any]] = {}
    refused = {field.column for field in served.contract.fields if all(field.column not in record for record in records)}
    lengths: list[dict[str, int]] = [{} for _ in records]
    for field in served.contract.fields:
        kind = pa.string() if field.is_text else pa.float64()
        rows: list[Any] = []
        for number, record in enumerate(records):
            value = record.get(field.column)
            try:
                if field.group != "behaviors":
                    rows.append(served.encoder.encode(field, pa.array([training_value(field, value)], kind))[0])
                    continue
                if isinstance(value, (str, dict, bool, int)) or (isinstance(value, float) and value == value):
                    raise RefusedError
                entries = [training_value(field, entry) for entry in value] if isinstance(value, list) else []
                lengths[number][field.column] = len(entries)
                encoded = served.encoder.encode(field, pa.array(entries[:HISTORY], kind))
                rows.append(np.pad(encoded, (0, HISTORY - len(encoded))))
            except RefusedError:
                refused.add(field.column)
        columns[field.column] = rows
    refused |= {column for row_lengths in lengths if len(set(row_lengths.values())) > 1 for column in row_lengths}
    if refused:
        return [], refused
    batch = {name: torch.from_numpy(np.stack(rows)) for name, rows in columns.items()}
    batch["behavior_length"] = torch.tensor(
        [min(max(row_lengths.values()), HISTORY) for row_lengths in lengths], dtype=torch.int32
    )
    with torch.inference_mode():
        return torch.sigmoid(served.model(batch)).tolist(), set()


ODD_IDS: Sequence[Callable[[random.Random], Any]] = (
    lambda _: None,
    lambda draw: draw.randrange(-5, 40),
    lambda draw: draw.choice([3.0, 0.1, -0.0, 1e-7, 2.5, 1e15]),
    lambda draw: draw.choice([True, False]),
    lambda draw: draw.choice(["", " ", "None", "nan", "i3 ", "\u0000", "\u00e9\U0001f600", "7.0", "0021"]),
    lambda draw: "x" * draw.choice([1000, 1001]),
    lambda draw: draw.choice([2**53 + 1, 2**63, 2**70, -(2**70)]),
    lambda draw: draw.choice([float("nan"), float("inf"), -float("inf"), 1e300]),
    lambda draw: draw.choice(["\ud83d", "a\udfff", [], ["i1"], {}, {"a": 1}]),
)
ODD_NUMBERS: Sequence[Callable[[random.Random], Any]] = (
    lambda _: None,
    lambda draw: draw.randrange(-5, 40),
    lambda draw: draw.choice([0.0, -0.0, 1e-300, 1e300, 2**53 + 1, 2**63, 2**70]),
    lambda draw: draw.choice([float("nan"), float("inf"), -float("inf")]),
    lambda draw: draw.choice(["", "3", "\ud83d", True, [], [1.0], {}, 10**400]),
)
ODD_LISTS: Sequence[Callable[[random.Random], Any]] = (
    lambda _: None,
    lambda _: float("nan"),
    lambda _: [],
    lambda draw: draw.choice(["i1", 3, 0.5, True, {}, {"0": "i1"}]),
)


def value_of(draw: random.Random, field: Field, oddity: float) -> Any:
    if draw.random() < oddity:
        return draw.choice(ODD_IDS if field.is_text else ODD_NUMBERS)(draw)
    if field.is_text:
        return draw.choice([*VALUES[field.vocabulary or ""], "new"])
    return round(draw.uniform(-2, 30), 2)


def draw_request(draw: random.Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A request, and the records that it stands for."""
    oddity = draw.choice([0.0, 0.05, 0.3])
    records: list[dict[str, Any]] = []
    for _ in range(draw.choice([0, 1, 1, 2, 2, 3, 5]) if oddity else 3):
        length = draw.randrange(HISTORY + 3)
        record = {}
        for field in ODD_FIELDS:
            if draw.random() < oddity / 4:
                continue
            if field.group != "behaviors":
                record[field.column] = value_of(draw, field, oddity)
            elif draw.random() < oddity / 4:
                record[field.column] = draw.choice(ODD_LISTS)(draw)
            else:
                record[field.column] = [value_of(draw, field, oddity / 2) for _ in range(length + (draw.random() < oddity / 8))]
        if oddity and draw.random() < 0.2:
            record["extra"] = draw.choice([None, 1, "a", [1], "\ud83d"])
        records.append(record)
    request: dict[str, Any] = {"dataframe_records": records}
    if draw.random() < 0.3:
        names = list(dict.fromkeys(name for record in records for name in record))
        request = {"dataframe_split": {"columns": names, "data": [[record.get(name) for name in names] for record in records]}}
    if draw.random() < 0.3:
        request["params"] = {"explain": draw.choice([True, False])}
    return request, records


@pytest.mark.parametrize("seed", range(REQUESTS))
def test_a_drawn_request_is_scored_as_trained_or_refused(served: Served, seed: int) -> None:
    request, records = draw_request(random.Random(seed))
    answer = ask(served, request)
    if not records:
        assert answer.status == 400
        return
    right, refused = expected(served, records)
    if refused:
        assert answer.status == 400, f"{sorted(refused)} has no encoding: {answer.text}"
        message = json.loads(answer.text)["message"].rpartition("Error: ")[2]
        too_large = "int too large to convert to float" in message  # pandas says so before a model is asked
        assert too_large or any(column in message for column in refused), message
        return
    # beside a missing value or a fraction pandas makes of a whole number a float, which from 2^53 on is another
    wide = {
        field.column
        for field in ODD_FIELDS
        for record in records
        if isinstance(value := record.get(field.column), int) and field.is_text and abs(value) >= 2**53
    }
    if wide and answer.status == 400:
        assert any(column in answer.text for column in wide), answer.text
        return
    np.testing.assert_allclose(probabilities(answer), right, atol=1e-6)


ROW: Mapping[str, Any] = {
    "candidate_item_id": "i3",
    "candidate_category": "toys",
    "candidate_price": 12.5,
    "behavior_item_id": ["i1", "i2"],
    "behavior_category": ["books", None],
    "behavior_gap": [1, 30.0],
    "behavior_hour": [7, None],
    "user_age": None,
    "context_hour": 9,
}
HISTORY_COLUMNS = [name for name in ROW if name.startswith("behavior_")]


@pytest.mark.parametrize(
    "rows",
    [
        [ROW],
        [ROW, {name: value for name, value in ROW.items() if name not in HISTORY_COLUMNS}],
        [ROW, {**ROW, **dict.fromkeys(HISTORY_COLUMNS, float("nan"))}],
        [{**ROW, "candidate_item_id": 3, "behavior_category": [7, "books"]}],
        [{**ROW, "candidate_category": 7}, {**ROW, "candidate_category": None}],
        [{**ROW, "candidate_price": 2**70, "behavior_gap": [1, 2**70]}],
        [{**ROW, "candidate_category": "x" * 1001}],
        [{**ROW, "behavior_category": [1, 1.5]}, {**ROW, "behavior_category": [True, 1.5]}],
    ],
    ids=["null in a list", "no keys", "nan for lists", "whole numbers", "beside null", "2^70", "long text", "true in a list"],
)
@pytest.mark.parametrize("explained", [False, True])
def test_what_is_missing_or_of_another_type_is_scored_as_trained(
    served: Served, rows: list[dict[str, Any]], explained: bool
) -> None:
    right, refused = expected(served, rows)
    assert not refused
    answer = ask(served, {"dataframe_records": rows, "params": {"explain": explained}})
    np.testing.assert_allclose(probabilities(answer), right, atol=1e-6)
    # a column of one type stays one of objects here, as in a frame of mixed rows
    frame = pd.DataFrame(rows)
    np.testing.assert_allclose(served.pyfunc.predict(frame)["probability"], right, atol=1e-6)
    np.testing.assert_allclose(served.pyfunc.predict(frame.astype(object))["probability"], right, atol=1e-6)
    if explained:
        number = next(i for i, row in enumerate(rows) if isinstance(row.get("behavior_category"), list))
        lines = json.loads(answer.text)["predictions"][number]["explanation"]
        shown = [line["value"]["category"] for line in lines if line["module"] == "IBIM"]
        categories = next(field for field in ODD_FIELDS if field.column == "behavior_category")
        assert shown == [training_value(categories, value) for value in rows[number]["behavior_category"]]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"dataframe_records": []}, "the input has no rows"),
        ({"dataframe_split": {"columns": list(ROW), "data": []}}, "the input has no rows"),
        (
            {"dataframe_records": [{"item_id": "i1", "city": "x"}] * 3},
            "none of the model's columns; it takes candidate_item_id, ",
        ),
        ({"dataframe_records": [{**ROW, "user_age": "\ud83d"}]}, "column user_age, row 0: the text is not Unicode"),
        (
            {"dataframe_records": [ROW, {**ROW, "behavior_item_id": ["i1", "\ud83d"]}]},
            "column behavior_item_id, row 1: the text is not Unicode",
        ),
        ({"dataframe_records": [{**ROW, "behavior_gap": [1, 10**400]}]}, "column behavior_gap, row 0: the number is larger"),
        (
            {"dataframe_records": [{**ROW, "behavior_hour": [True, 1.5]}]},
            "column behavior_hour, row 0: a number is needed, got bool",
        ),
        (
            {"dataframe_records": [{**ROW, "candidate_category": 2**53 + 1}, {**ROW, "candidate_category": None}]},
            "column candidate_category, row 0: an id is a float",
        ),
        *(
            (
                {"dataframe_split": {"columns": [*ROW, "user_age"], "data": [[*ROW.values(), "20s"]] * rows}},
                "user_age",
            )
            for rows in (1, 2, 3)
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(served: Served, request_: Mapping[str, Any], said: str) -> None:
    for params in ({}, {"explain": True}):
        answer = ask(served, {**request_, "params": params})
        assert answer.status == 400
        assert said in json.loads(answer.text)["message"]
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("columns", "same"),
    [
        ({"user_age": np.nan}, {"user_age": None}),
        ({"user_age": pd.Categorical(["20s", None])}, {"user_age": ["20s", None]}),
        (dict.fromkeys(HISTORY_COLUMNS, np.nan), dict.fromkeys(HISTORY_COLUMNS)),
        ({"candidate_price": np.array([2, 30])}, {"candidate_price": [2.0, 30.0]}),
        ({"candidate_price": pd.array([3, None], "Int64")}, {"candidate_price": [3.0, None]}),
        ({"candidate_category": np.array([7, 21])}, {"candidate_category": ["7", "21"]}),
        ({"candidate_category": pd.array([7, None], "Int64")}, {"candidate_category": ["7", None]}),
        ({"candidate_category": pd.Categorical([7, 21])}, {"candidate_category": ["7", "21"]}),
        ({"candidate_category": ["7", 21]}, {"candidate_category": ["7", "21"]}),
        ({"candidate_category": pd.array(["7", None], "string")}, {"candidate_category": ["7", None]}),
        ({"context_hour": pd.Categorical([7, 21])}, {"context_hour": [7.0, 21.0]}),
    ],
    ids=lambda value: " ".join(str(value).split())[:60],
)
def test_a_frame_as_pandas_makes_it_is_scored_as_trained(
    served: Served, columns: Mapping[str, Any], same: Mapping[str, Any]
) -> None:
    frame, plain = pd.DataFrame([ROW, ROW]).assign(**columns), pd.DataFrame([ROW, ROW]).astype(object)
    for name, value in same.items():
        plain[name] = pd.Series(value if isinstance(value, list) else [value] * 2, dtype=object)
    right, refused = expected(served, plain.to_dict("records"))
    assert not refused
    assert len({round(p, 6) for p in right}) > 1 or not any(isinstance(value, list) for value in same.values())
    np.testing.assert_allclose(served.pyfunc.predict(frame)["probability"], right, atol=1e-6)
    np.testing.assert_allclose(served.pyfunc.predict(frame, params={"explain": True})["probability"], right, atol=1e-6)


def test_a_category_of_32_bits_is_its_text_or_refused(served: Served) -> None:
    frame = pd.DataFrame([ROW]).assign(candidate_category=np.array([0.1], np.float32))
    servable = load_servable(served.folder)
    right, _ = expected(served, [{**ROW, "candidate_category": "0.1"}])
    np.testing.assert_allclose(servable.predict_proba(frame), right, atol=1e-6)
    with pytest.raises(mlflow.MlflowException, match="column candidate_category, row 0: an id is a float of 32 bits"):
        served.pyfunc.predict(frame)  # MLflow widens it
