"""One user and N candidates of raw values: the probabilities of whole rows, on torch and in an exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mian.models import MODELS
from mian.scoring.onnx_scorer import OnnxScorer
from mian.scoring.servable_files import ServableError
from mian.serving import OneUser, Servable, load_servable
from mian.serving.onnx_export import ExportError, export_onnx
from tests.factories import make_model, make_servable, read_examples, write_samples, write_servable
from tests.mian.models.test_one_user import VARIANTS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Samples, their contract, and raw rows of them."""
    folder = tmp_path_factory.mktemp("samples")
    contract = write_samples(folder)
    return folder, contract, read_examples(folder, contract, "test")


def servable_of(world: Any, name: str, options: dict[str, Any]) -> Servable:
    """A calibrated model whose probabilities are far apart."""
    folder, contract, _ = world
    servable = make_servable(contract, folder, name, options)
    torch.manual_seed(1)
    for parameter in servable.model.parameters():
        nn.init.normal_(parameter, std=0.1)
    servable.model.set_negative_sampling_rate(0.25)
    servable.model.set_calibration(1.3, -0.4)
    return servable


def values(raw: pd.DataFrame, contract: Any, group: str, row: int) -> dict[str, Any]:
    return {field.name: raw[field.column].iloc[row] for field in contract.group(group)}


def request_of(raw: pd.DataFrame, contract: Any, row: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Any]]]:
    """The user, context and behaviors of a row."""
    behaviors = {name: list(history) for name, history in values(raw, contract, "behaviors", row).items()}
    return values(raw, contract, "user", row), values(raw, contract, "context", row), behaviors


def candidates_of(raw: pd.DataFrame, contract: Any) -> dict[str, list[Any]]:
    """The candidates of all rows."""
    return {field.name: raw[field.column].tolist() for field in contract.group("candidate")}


def whole_rows(raw: pd.DataFrame, contract: Any, row: int) -> pd.DataFrame:
    """A row's user, context and behaviors beside the candidates of all rows."""
    repeated = raw.iloc[[row] * len(raw)].reset_index(drop=True)
    for field in contract.group("candidate"):
        repeated[field.column] = raw[field.column].to_numpy()
    return repeated


@pytest.mark.parametrize("name", MODELS)
def test_candidates_of_a_user_have_the_probabilities_of_whole_rows(world: Any, name: str) -> None:
    _, contract, raw = world
    servable = servable_of(world, name, {})
    one = OneUser(servable)
    for row in range(8):
        user, context, behaviors = request_of(raw, contract, row)
        found = one.candidates(one.user(user, context, behaviors), candidates_of(raw, contract))
        np.testing.assert_allclose(found, servable.predict_proba(whole_rows(raw, contract, row)), atol=1e-6)
        assert found.std() > 1e-5


def test_the_context_of_a_candidate_takes_the_place_of_the_request(world: Any) -> None:
    _, contract, raw = world
    servable = servable_of(world, "mian", {})
    one = OneUser(servable)
    user, context, behaviors = request_of(raw, contract, 0)
    slots = [float(number % 10) for number in range(len(raw))]
    found = one.candidates(one.user(user, context, behaviors), candidates_of(raw, contract), {"slot": slots})
    rows = whole_rows(raw, contract, 0).assign(context_slot=slots)
    np.testing.assert_allclose(found, servable.predict_proba(rows), atol=1e-6)
    assert np.abs(found - servable.predict_proba(whole_rows(raw, contract, 0))).max() > 1e-5


def check_graph(world: Any, servable: Servable, folder: Path) -> None:
    _, contract, raw = world
    assert export_onnx(servable, folder) <= 1e-5
    assert [file.name for file in folder.iterdir()] == ["model.onnx"]
    one, graph = OneUser(servable), OnnxScorer(folder)
    for row in range(8):
        user = one.encoder.user(*request_of(raw, contract, row))
        for context in (None, {"slot": [float(number % 10) for number in range(len(raw))]}):
            candidates = one.encoder.candidates(user, candidates_of(raw, contract), context)
            np.testing.assert_allclose(graph.score(user, candidates), one.score(user, candidates), atol=1e-6)


@pytest.mark.parametrize("name", ["deepfm", "mian"])
def test_a_graph_gives_the_probabilities_of_its_model(world: Any, tmp_path: Path, name: str) -> None:
    check_graph(world, servable_of(world, name, {}), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_model_has_a_graph(world: Any, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    check_graph(world, servable_of(world, name, options), tmp_path)


def test_a_graph_with_other_probabilities_is_not_written(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servable = servable_of(world, "lr", {})
    (tmp_path / "model.onnx").write_bytes(b"the graph before")
    (tmp_path / ".export.killed").mkdir()
    right = OnnxScorer.score
    monkeypatch.setattr(OnnxScorer, "score", lambda *arguments: right(*arguments) + 2e-5)
    with pytest.raises(ExportError, match=r"differ from the model's by up to 2\.0e-05"):
        export_onnx(servable, tmp_path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the graph before"]


def test_a_model_that_reads_its_values_is_refused_in_a_word(world: Any, tmp_path: Path) -> None:
    servable = servable_of(world, "lr", {})
    logits = servable.model.logits
    servable.model.logits = lambda batch: logits(batch) * float(batch["candidate_price"].sum() > 0)  # type: ignore[method-assign]
    with pytest.raises(ExportError, match="cannot be exported to ONNX: "):
        export_onnx(servable, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), (b"no graph", "cannot be read")])
def test_a_missing_or_damaged_graph_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ServableError, match=message):
        OnnxScorer(tmp_path)


def test_a_graph_of_other_weights_is_refused(world: Any, tmp_path: Path) -> None:
    folder, contract, _ = world
    for name, seed in (("one", 0), ("other", 1)):
        write_servable(tmp_path / name, make_model(contract, "lr", {}, seed), contract, folder, "lr", {})
        export_onnx(load_servable(tmp_path / name), tmp_path / name)
        OnnxScorer(tmp_path / name)
    (tmp_path / "other" / "model.onnx").replace(tmp_path / "one" / "model.onnx")
    with pytest.raises(ServableError, match="made of other weights"):
        OnnxScorer(tmp_path / "one")


def test_a_model_keeps_what_stands_for_its_positions(world: Any, tmp_path: Path) -> None:
    folder, contract, raw = world
    model = make_model(contract)
    write_servable(tmp_path / "model", model, contract, folder, position_fields={"slot": None, "hour": None})
    servable = load_servable(tmp_path / "model")
    assert servable.stand_ins == {"context_slot": 0.0, "context_hour": 2}
    one = OneUser(servable)
    user, _, behaviors = request_of(raw, contract, 0)
    found = one.candidates(one.user(user, {}, behaviors), candidates_of(raw, contract))
    rows = whole_rows(raw, contract, 0)
    replaced = rows.assign(context_slot=4.5, context_hour="0")  # the mean, and the first of the vocabulary
    np.testing.assert_allclose(found, servable.predict_proba(replaced), atol=1e-6)
    left_out = rows.drop(columns=["context_slot", "context_hour"])
    np.testing.assert_array_equal(servable.predict_proba(left_out), servable.predict_proba(replaced))
