"""The export job on a model in a real MLflow store, and on the folder that a training kept."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from jobs import export, register
from mian.scoring.onnx_scorer import OnnxScorer
from mian.serving import OneUser, load_servable
from mian.tracking import registry
from tests.factories import read_examples
from tests.jobs.conftest import Finished, one_error
from tests.support.stores import new_store


@pytest.fixture
def store(beside: Finished) -> str:
    """A store of this test's own that has the model: an export puts a file into it."""
    uri = new_store(Path("own.db").absolute())
    assert register.main(["--model", str(beside.models[0]), f"tracking.uri={uri}"]) == 0
    return uri


@pytest.fixture
def run(store: str) -> Callable[[object], int]:
    """Exports a model of that store, or of a folder."""

    def export_(model: object) -> int:
        return export.main(["--model", str(model), "--to", "onnx", "--tracking-uri", store])

    return export_


def scores(beside: Finished, folder: Path) -> tuple[Any, Any]:
    """Of some candidates of one user, by the graph and by the model."""
    raw, one = read_examples(beside.samples, beside.contract, "test"), OneUser(load_servable(folder))
    values = {
        group: {field.name: raw[field.column].iloc[3] for field in beside.contract.group(group)}
        for group in ("user", "context", "behaviors")
    }
    user = one.encoder.user(values["user"], values["context"], {name: list(lists) for name, lists in values["behaviors"].items()})
    fields = beside.contract.group("candidate")
    candidates = one.encoder.candidates(user, {field.name: raw[field.column].tolist() for field in fields})
    return OnnxScorer(folder).score(user, candidates), one.score(user, candidates)


def test_the_graph_of_a_registered_model_comes_with_it(run: Callable[[object], int], beside: Finished, capsys: Any) -> None:
    assert run("models:/mian@newest") == 0
    assert "by at most" in capsys.readouterr().out
    downloaded = Path(mlflow.artifacts.download_artifacts("models:/mian/1", dst_path="copy"))
    (graph,) = downloaded.rglob("model.onnx")
    found, right = scores(beside, graph.parent)
    np.testing.assert_allclose(found, right, atol=1e-6)
    assert registry.load_model("models:/mian/1").contract.fields == beside.contract.fields, "it is the model that it was"


def test_the_graph_goes_to_the_version_that_was_exported_though_the_alias_moves_meanwhile(
    run: Callable[[object], int], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, places = mlflow.MlflowClient(store), []
    source = client.get_model_version("mian", "1").source
    client.set_registered_model_alias("mian", "moving", "1")

    def export_slowly(servable: Any, folder: Path) -> float:
        second = client.create_model_version("mian", source)
        client.set_registered_model_alias("mian", "moving", second.version)
        return 0.0

    monkeypatch.setattr(export, "export_onnx", export_slowly)
    monkeypatch.setattr(export, "attach_files", lambda uri, files: places.append(uri))
    assert run("models:/mian@moving") == 0
    assert places == ["models:/mian/1"]


def test_the_graph_of_a_folder_lies_beside_its_weights(run: Callable[[object], int], beside: Finished) -> None:
    shutil.copytree(beside.models[0], "kept")
    assert run("kept") == 0
    first = Path("kept/model.onnx").stat()
    assert run("kept") == 0, "once more"
    assert {file.name for file in Path("kept").iterdir()} == {file.name for file in Path(beside.models[0]).iterdir()} | {
        "model.onnx"
    }
    assert Path("kept/model.onnx").stat().st_ino != first.st_ino
    found, right = scores(beside, Path("kept"))
    np.testing.assert_allclose(found, right, atol=1e-6)


@pytest.mark.parametrize("model", ["no-such-folder", "models:/mian@champion", "models:/none/1"])
def test_what_is_not_there_is_one_error(run: Callable[[object], int], model: str, capsys: Any) -> None:
    assert run(model) == 1
    assert one_error(capsys)
