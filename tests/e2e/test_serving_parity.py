"""Evaluation, the registered model, batch scoring and the server, on torch and on ONNX, give one probability for one impression.

``MIAN_PARITY_ROWS=10000`` scores that many impressions.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from jobs import evaluate
from mian.contract import Contract, read_contract
from mian.models import build
from mian.scoring.one_user_encoder import OneUserEncoder
from mian.scoring.onnx_scorer import OnnxScorer
from mian.scoring.stand_ins import serving_stand_ins
from mian.server.replay import read_log, replay
from mian.serving import input_example, load_servable, read_vocabularies, save_servable
from mian.serving.mlflow_export import log_servable
from mian.serving.onnx_export import export_onnx
from tests.support.odd_logs import HISTORY, write_odd_logs

ROOT = Path(__file__).parents[2]
ROWS = int(os.environ.get("MIAN_PARITY_ROWS", "2000"))
TOLERANCE = 1e-5

pytestmark = [pytest.mark.spark, pytest.mark.long]


def run(folder: Path, *command: str) -> str:
    """Run a job in a folder; what it printed."""
    environment = os.environ | {"SPARK_CONF_DIR": str(ROOT / "conf" / "spark"), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, samples and a model whose probabilities are far apart, with its graph."""
    folder = tmp_path_factory.mktemp("parity")
    write_odd_logs(folder, ROWS)
    run(folder, "build_samples.py", "--config", "odd.yaml", "--from", "2026-01-01", "--to", "2026-01-05")
    samples = str(folder / "samples")
    contract = read_contract(samples)
    torch.manual_seed(0)
    model = build("mian", contract, {})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    vocabularies = read_vocabularies(contract, samples)
    stand_ins = serving_stand_ins(contract, {"position": 5}, vocabularies)
    save_servable(folder / "model", model, "mian", {}, contract, vocabularies, stand_ins)
    export_onnx(load_servable(folder / "model"), folder / "model")
    return folder


@pytest.fixture(scope="module")
def right(folder: Path) -> pd.Series:
    """The probabilities of the evaluation, by impression."""
    code = evaluate.main(
        ["--model", str(folder / "model"), "--samples", str(folder / "samples"), "--predictions", str(folder / "right.parquet")]
    )
    assert code == 0
    table = pd.read_parquet(folder / "right.parquet")
    assert len(table) == ROWS
    assert table["probability"].std() > 0.01
    return table.set_index("impression_id")["probability"]


@pytest.fixture(scope="module")
def raw(folder: Path) -> pd.DataFrame:
    """The same impressions as raw rows."""
    contract = read_contract(str(folder / "samples"))
    files = [day.examples for day in contract.split("test")]
    tables = [pq.read_table(folder / "samples" / file.path).to_pandas() for file in files if file is not None]
    rows = pd.concat(tables, ignore_index=True)
    lengths = rows["behavior_item_id"].map(len)
    assert {0, HISTORY} <= set(lengths)
    assert rows["candidate_price"].isna().any()
    assert rows["context_device"].isna().any()
    assert "9223372036854775808" in set(rows["candidate_item_id"])
    return rows


def score_days(folder: Path, impressions: str, output: str, *options: str) -> None:
    """Run batch scoring on the days of the test split."""
    paths = ["--impressions", impressions, "--output", output]
    days = ["--from", "2026-01-04", "--to", "2026-01-05"]
    run(folder, "score.py", "--config", "odd.yaml", "--model", "model", *paths, *days, *options)


def scores_of(folder: Path) -> pd.Series:
    """What batch scoring wrote, by impression."""
    scores = ds.dataset(folder, format="parquet").to_table(columns=["impression_id", "score"]).to_pandas()
    return scores.set_index("impression_id")["score"]


def difference(found: pd.Series, right: pd.Series) -> float:
    """The largest difference of all impressions."""
    assert sorted(found.index) == sorted(right.index)
    largest = float((found.reindex(right.index) - right).abs().max())
    print(f"{len(right):,} impressions, largest difference {largest:.1e}")
    return largest


def test_the_registered_model_scores_as_the_evaluation(folder: Path, raw: pd.DataFrame, right: pd.Series, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        experiment = mlflow.create_experiment("parity", artifact_location=(tmp_path / "artifacts").as_uri())
        contract = read_contract(str(folder / "samples"))
        with mlflow.start_run(experiment_id=experiment):  # set_experiment would count for all tests that follow
            uri = log_servable(folder / "model", input_example(contract, str(folder / "samples"))).model_uri
        found = mlflow.pyfunc.load_model(uri).predict(raw)["probability"]
    finally:
        mlflow.set_tracking_uri(before)
    assert difference(pd.Series(found.to_numpy(), raw["impression_id"]), right) <= TOLERANCE


def test_batch_scoring_scores_as_the_evaluation(folder: Path, right: pd.Series) -> None:
    score_days(folder, "logs/impressions", "scores")
    assert difference(scores_of(folder / "scores"), right) <= TOLERANCE


def test_candidates_that_have_no_position_yet_are_scored_as_the_evaluation_does_with_what_stands_for_it(
    folder: Path, right: pd.Series
) -> None:
    (folder / "logs" / "candidates").mkdir()
    shown = pq.read_table(folder / "logs" / "impressions" / "part.parquet")
    pq.write_table(shown.drop(["position"]), folder / "logs" / "candidates" / "part.parquet")
    score_days(folder, "logs/candidates", "unranked", "--position", "serving")
    found = scores_of(folder / "unranked")

    samples, predictions = str(folder / "samples"), str(folder / "serving.parquet")
    arguments = ["--model", str(folder / "model"), "--samples", samples, "--predictions", predictions]
    assert evaluate.main([*arguments, "--position", "serving"]) == 0
    evaluated = pd.read_parquet(predictions).set_index("impression_id")["probability"]
    assert difference(found, evaluated) <= TOLERANCE
    assert difference(found, right) > 0.01, "positions matter"


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_the_server_scores_as_the_evaluation_and_its_log_can_be_replayed(
    folder: Path, raw: pd.DataFrame, right: pd.Series, engine: str
) -> None:
    log = folder / f"log-{engine}"
    contract = read_contract(str(folder / "samples"))
    parts = {}
    with serving(folder, "--model", "model", "--engine", engine, "--log-requests", "1", "--log-folder", str(log)) as address:
        for ids, request in requests_of(raw, contract):
            answer = post(address, request)
            parts.update(zip(ids, answer["probabilities"], strict=True))
    assert difference(pd.Series(parts), right) <= TOLERANCE

    servable = load_servable(folder / "model")
    encoder = OneUserEncoder(servable.contract, servable.vocabularies, servable.stand_ins)
    graph, count = OnnxScorer(folder / "model"), 0
    for logged in read_log(log):
        np.testing.assert_allclose(replay(logged, encoder, graph), logged.probabilities, atol=TOLERANCE)
        count += len(logged.probabilities)
    assert count == ROWS, "every request is in the log once"


def requests_of(raw: pd.DataFrame, contract: Contract) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """A request for each user and moment, and the impressions that its candidates are."""
    for _, rows in raw.groupby(["user_key", "time"], sort=False):
        first = rows.iloc[0]
        request: dict[str, Any] = {
            group: {field.name: plain(first[field.column]) for field in contract.group(group) if field.name != "position"}
            for group in ("user", "context", "behaviors")
        }
        request["candidates"] = {field.name: plain(rows[field.column].tolist()) for field in contract.group("candidate")}
        request["candidate_context"] = {"position": rows["context_position"].tolist()}
        yield rows["impression_id"].tolist(), request


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, (list, np.ndarray)):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """A server's address, until it is asked to end and has."""
    with (folder / "server.log").open("w+") as log:
        command = [sys.executable, str(ROOT / "jobs" / "serve.py"), "--port", "0", *options]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield address_of(process, folder / "server.log")
        finally:
            process.terminate()
            assert process.wait(60) == 0, (folder / "server.log").read_text()


def address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where a server listens, once it says so."""
    for _ in range(600):
        found = re.search(r"http://\S+", log.read_text())
        if found is not None:
            return found[0]
        with_status = process.poll()
        assert with_status is None, log.read_text()
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(log.read_text())


def post(address: str, request: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{address}/v1/score", json.dumps(request).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)
