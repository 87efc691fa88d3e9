"""With a graph the server runs where torch, pandas and MLflow are not installed, and scores are those of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mian.serving import load_servable
from mian.serving.onnx_export import export_onnx
from tests.mian.server.conftest import World, expected
from tests.support.ranking_server import RankingServer, ranking_server, start_server, wait_for

pytestmark = pytest.mark.e2e

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

ABSENT = {"torch", "pandas", "mlflow", "omegaconf", "yaml", "sqlalchemy", "horovod", "petastorm", "pyspark"}

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from jobs.serve import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def graph(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = world.write(tmp_path_factory.mktemp("graph") / "model", seed=3)
    export_onnx(load_servable(folder), folder)
    return folder


@pytest.fixture(scope="module")
def bare_server(graph: Path) -> Iterator[RankingServer]:
    with ranking_server(graph, "--reload-seconds", "0.2", program=("-c", WITHOUT)) as server:
        yield server


def test_scores_are_those_of_torch(bare_server: RankingServer, graph: Path, request_body: dict[str, Any]) -> None:
    assert bare_server.get("/version").json()["engine"] == "onnx"
    for body in (
        request_body,
        {**request_body, "behaviors": {}},
        {**request_body, "candidate_context": {"hour": ["1", None, "new"]}},
        {**request_body, "candidates": {name: values[:1] for name, values in request_body["candidates"].items()}},
        {**request_body, "candidates": {name: values * 90 for name, values in request_body["candidates"].items()}},
    ):
        answer = bare_server.post(body)
        assert answer.status_code == 200
        np.testing.assert_allclose(answer.json()["probabilities"], expected(graph, body), atol=1e-5)


def test_an_explanation_is_refused_with_the_remedy(bare_server: RankingServer, request_body: dict[str, Any]) -> None:
    answer = bare_server.post({**request_body, "explain": True})
    assert answer.status_code == 400
    assert answer.json()["field"] == "explain"
    assert "--engine torch" in answer.json()["error"]


def test_a_version_whose_graph_is_damaged_does_not_take_its_place(
    world: World, graph: Path, bare_server: RankingServer, request_body: dict[str, Any]
) -> None:
    before = bare_server.post(request_body).json()["probabilities"]
    content = (graph / "model.onnx").read_bytes()
    description = (graph / "model.json").read_bytes()
    broken = 'mian_reload_failures_total{reason="broken"}'
    for damage in (content[:1_000], None):  # without any graph the engine would be torch, which is not there
        failed = bare_server.metrics()[broken]
        (graph / "model.onnx").unlink(missing_ok=True)
        if damage is not None:
            (graph / "model.onnx").write_bytes(damage)
        (graph / "model.json").write_bytes(description)
        wait_for(lambda failed=failed: bare_server.metrics()[broken] > failed)
        assert bare_server.post(request_body).json()["probabilities"] == before
    (graph / "model.onnx").write_bytes(content)
    (graph / "model.json").write_bytes(description)
    reloads = bare_server.metrics()["mian_reloads_total"]
    wait_for(lambda: bare_server.metrics()["mian_reloads_total"] > reloads)


def test_a_model_without_a_graph_says_what_is_missing(servable: Path) -> None:
    with start_server(servable, program=("-c", WITHOUT)) as server:
        assert server.wait() == 1
        assert "Traceback" not in server.said
        assert "the torch engine needs the package" in server.said
        assert "jobs/export.py writes model.onnx" in server.said
