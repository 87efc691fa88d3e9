"""Another model takes the place of the one that answers; one that cannot be used changes nothing."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from mian.server.model_files import FolderFiles
from mian.server.reloader import Reloader, fetch_model
from mian.server.settings import ServerSettings
from mian.server.state import ServerState
from tests.mian.server.conftest import World, expected
from tests.support.ranking_server import RankingServer, ranking_server, wait_for
from tests.support.stores import new_store
from tests.support.tracking_server import tracking_server

pytestmark = pytest.mark.e2e

OFTEN = ("--reload-seconds", "0.2")
FAILURES = 'mian_reload_failures_total{reason="%s"}'


def failures(server: RankingServer, reason: str) -> float:
    return server.metrics()[FAILURES % reason]


def version(server: RankingServer) -> str:
    found: str = server.get("/version").json()["version"]
    return found


def test_a_folder_is_read_again_when_its_model_was_replaced(world: World, tmp_path: Path, request_body: dict[str, Any]) -> None:
    folder = world.write(tmp_path / "model", seed=0)
    with ranking_server(folder, *OFTEN) as server:
        first = version(server)
        for seed in (1, 2):
            reloads = server.metrics()["mian_reloads_total"]
            world.write(folder, seed=seed)
            wait_for(lambda before=reloads: server.metrics()["mian_reloads_total"] == before + 1)
            np.testing.assert_allclose(
                server.post(request_body).json()["probabilities"], expected(folder, request_body), atol=1e-7
            )
        assert version(server) > first
        assert server.end() == 0


@pytest.mark.parametrize("case", ["damaged", "no weights", "other vocabularies", "scores that are no numbers", "gone"])
def test_a_model_that_cannot_be_used_is_named_once_and_the_old_one_answers(
    world: World, tmp_path: Path, request_body: dict[str, Any], case: str
) -> None:
    folder = world.write(tmp_path / "model")
    good = shutil.copytree(folder, tmp_path / "good")
    with ranking_server(folder, *OFTEN) as server:
        before = server.post(request_body).json()
        reason = "missing" if case == "gone" else "broken"
        break_model(case, folder, world, tmp_path)
        wait_for(lambda: failures(server, reason) >= 1)
        answer = server.post(request_body).json()
        assert answer["probabilities"] == before["probabilities"]
        assert answer["version"] == before["version"]
        assert server.said.count("answers on") == 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder, copy_function=shutil.copyfile)
        wait_for(lambda: version(server) != before["version"])
        assert server.post(request_body).json()["probabilities"] == before["probabilities"]


def test_weights_that_change_under_a_running_server_change_no_score(
    world: World, tmp_path: Path, request_body: dict[str, Any]
) -> None:
    folder = world.write(tmp_path / "model")
    with ranking_server(folder, "--engine", "torch", "--reload-seconds", "0") as server:
        before = server.post(request_body).json()["probabilities"]
        weights = folder / "weights.pt"
        with weights.open("r+b") as file:
            file.write(b"\xff" * weights.stat().st_size)
            file.truncate(10)
        assert server.post(request_body).json()["probabilities"] == before


def test_an_error_that_nobody_foresaw_does_not_end_the_looks(
    servable: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = FolderFiles(servable)
    model = fetch_model(files, "torch")
    assert model is not None
    state = ServerState(ServerSettings(str(servable), engine="torch", reload_seconds=3_600), model)
    reloader = Reloader(state, files)

    def fail(unless: Any = ()) -> Any:
        raise KeyError("model_version")

    with monkeypatch.context() as patch:
        patch.setattr(files, "fetch", fail)
        reloader.look()
    reloader.look()
    text = state.metrics.text().decode()
    assert 'mian_reload_failures_total{reason="store"} 1.0' in text
    assert "mian_last_look_timestamp_seconds 0.0" not in text
    assert state.model is model
    state.close()


def break_model(case: str, folder: Path, world: World, tmp_path: Path) -> None:
    if case == "gone":
        shutil.rmtree(folder)
        return
    broken = world.write(tmp_path / "broken")
    if case == "damaged":
        (broken / "model.json").write_text("{")
    elif case == "no weights":
        (broken / "weights.pt").write_bytes(b"no weights")
    elif case == "other vocabularies":
        (path,) = broken.glob("vocabularies/item*")
        path.write_bytes(path.read_bytes() + b"x")
    else:
        import torch

        weights = torch.load(broken / "weights.pt")
        torch.save({name: weight * float("nan") for name, weight in weights.items()}, broken / "weights.pt")
    aside = tmp_path / "aside"
    folder.rename(aside)
    broken.rename(folder)


def test_requests_under_way_fail_at_no_reload_and_have_the_scores_of_the_version_that_they_name(
    world: World, tmp_path: Path, request_body: dict[str, Any]
) -> None:
    folder = world.write(tmp_path / "model")
    answers: list[dict[str, Any]] = []
    stop = threading.Event()

    def ask(server: RankingServer) -> None:
        while not stop.is_set():
            answer = server.post(request_body)
            assert answer.status_code == 200
            answers.append(answer.json())

    scores: dict[str, np.ndarray] = {}
    with ranking_server(folder, *OFTEN) as server:
        scores[version(server)] = expected(folder, request_body)
        threads = [threading.Thread(target=ask, args=[server]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for seed in range(1, 5):
            before = version(server)
            world.write(folder, seed=seed)
            wait_for(lambda before=before: version(server) != before)
            scores[version(server)] = expected(folder, request_body)
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 10)
        stop.set()
        for thread in threads:
            thread.join()
    assert {answer["version"] for answer in answers} == set(scores)
    assert all(np.abs(one - two).max() > 1e-5 for one, two in itertools.pairwise(scores.values()))
    for answer in answers:
        np.testing.assert_allclose(answer["probabilities"], scores[answer["version"]], atol=1e-7)


# A registry


@pytest.fixture
def store_uri() -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


def register(uri: str, folder: Path, experiment: str = "0") -> str:
    """Put a servable folder into the registry; the version. The experiment is named, for others may have set one of another store."""
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_artifacts(str(folder), "model/artifacts/servable")
    if not client.search_registered_models("name = 'ctr'"):
        client.create_registered_model("ctr")
    source = f"{run.info.artifact_uri}/model"
    return str(client.create_model_version("ctr", source, run.info.run_id).version)


def point(uri: str, to: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.MlflowClient().set_registered_model_alias("ctr", "champion", to)


@pytest.mark.usefixtures("store_uri")
def test_the_alias_of_a_tracking_server_is_followed(world: World, tmp_path: Path, request_body: dict[str, Any]) -> None:
    folders = [world.write(tmp_path / f"model-{seed}", seed=seed) for seed in range(2)]
    broken = shutil.copytree(folders[0], tmp_path / "broken")
    (broken / "weights.pt").unlink()
    with tracking_server(tmp_path) as uri:
        versions = [register(uri, folder) for folder in (*folders, broken)]
        point(uri, versions[0])
        with ranking_server("models:/ctr@champion", *OFTEN, "--tracking-uri", uri) as server:
            first = server.post(request_body).json()
            assert (first["model"], first["version"]) == ("ctr", versions[0])
            np.testing.assert_allclose(first["probabilities"], expected(folders[0], request_body), atol=1e-7)

            point(uri, versions[2])
            wait_for(lambda: failures(server, "broken") == 1)
            assert server.post(request_body).json()["probabilities"] == first["probabilities"]
            mlflow.MlflowClient().delete_registered_model_alias("ctr", "champion")
            wait_for(lambda: failures(server, "missing") >= 1)
            point(uri, versions[1])
            wait_for(lambda: version(server) == versions[1])
            np.testing.assert_allclose(
                server.post(request_body).json()["probabilities"], expected(folders[1], request_body), atol=1e-7
            )
            assert server.metrics()[f'mian_model_info{{engine="torch",model="ctr",version="{versions[1]}"}}'] == 1


@pytest.mark.usefixtures("store_uri")
def test_a_store_that_goes_away_is_named_and_the_model_answers_on(
    world: World, tmp_path: Path, request_body: dict[str, Any]
) -> None:
    folder = world.write(tmp_path / "model")
    with tracking_server(tmp_path) as uri:
        point(uri, register(uri, folder))
        context = ranking_server("models:/ctr@champion", *OFTEN, "--tracking-uri", uri)
        server = context.__enter__()
    try:
        wait_for(lambda: failures(server, "store") >= 2)
        assert server.post(request_body).status_code == 200
        assert server.get("/ready").status_code == 200
        assert server.said.count("answers on") == 1
        assert server.end() == 0
    finally:
        context.__exit__(None, None, None)


@pytest.mark.usefixtures("store_uri")
def test_a_version_in_a_database_is_served(world: World, tmp_path: Path, request_body: dict[str, Any]) -> None:
    folder = world.write(tmp_path / "model")
    uri = new_store(tmp_path / "mlflow.db")
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("served", artifact_location=(tmp_path / "artifacts").as_uri())
    found = register(uri, folder, experiment)
    with ranking_server(f"models:/ctr/{found}", environment={"MLFLOW_TRACKING_URI": uri}) as server:
        assert server.get("/version").json()["uri"] == f"models:/ctr/{found}"
        np.testing.assert_allclose(server.post(request_body).json()["probabilities"], expected(folder, request_body), atol=1e-7)
        with (
            pytest.raises(AssertionError, match="error: models:/ctr/99: "),
            ranking_server("models:/ctr/99", "--tracking-uri", uri),
        ):
            pass
