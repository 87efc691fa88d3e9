"""What a training records, whatever becomes of the tracking store and of the process."""

import json
import logging
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

import mian.tracking.tracker
from jobs import register, train
from mian.contract import Contract
from mian.serving import load_servable
from mian.tracking.model_keeper import ModelKeeper
from mian.tracking.records import TRAINING_TAG, read_metrics, read_training
from mian.tracking.registry import load_model
from tests.factories import spoil
from tests.jobs.conftest import OVERRIDES, Finished, Workplace, before_each_report, closed_port, one_error, points, the_run
from tests.support.stores import new_store
from tests.support.tracking_server import tracking_server

GARBAGE = b"no database for a while " * 5000


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported is sent at once, and tried again at once."""
    monkeypatch.setattr(mian.tracking.tracker, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(mian.tracking.tracker, "PATIENCE", 0.0)


def take_away(database: Path, monkeypatch: pytest.MonkeyPatch, at: int, back: int | None = None) -> list[bytes]:
    """A store is no database from one step's report on until another one's; what it held."""
    held: list[bytes] = []

    def act(step: int) -> None:
        if step == at and not held:
            held.append(database.read_bytes())
            database.write_bytes(GARBAGE)
        if step == back:
            database.write_bytes(held[0])

    before_each_report(monkeypatch, act)
    return held


def all_points(client: mlflow.MlflowClient, run_id: str) -> dict[tuple[str, int], int]:
    """How often each metric of each step is in a run."""
    found: dict[tuple[str, int], int] = {}
    for name in client.get_run(run_id).data.metrics:
        for point in client.get_metric_history(run_id, name) if not name.startswith("system/") else []:
            found[name, point.step] = found.get((name, point.step), 0) + 1
    return found


@pytest.mark.usefixtures("impatient")
def test_what_is_reported_during_an_outage_is_in_the_run_when_the_store_is_back(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level("INFO")
    take_away(workplace.folder / "mlflow.db", monkeypatch, at=20, back=60)
    assert train.main(["--config", str(workplace.config)]) == 0
    assert "answers again, and has all that was reported meanwhile" in caplog.text
    run = the_run(workplace)
    assert run.info.status == "FINISHED"
    found = all_points(workplace.store(), run.info.run_id)
    assert {("train_logloss", 20), ("train_logloss", 40), ("train_logloss", 60), ("validation_auc", 63)} <= found.keys()
    assert {name for name, _ in found} >= {"test_auc", "best_step", "samples_per_second"}
    assert set(found.values()) == {1}
    assert workplace.store().get_model_version_by_alias("mian", "newest").run_id == run.info.run_id
    assert workplace.output == [workplace.models[0].name], "nothing waits any more"


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_away_gets_everything_later_in_the_same_run(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    database = workplace.folder / "mlflow.db"
    held = take_away(database, monkeypatch, at=40)
    assert train.main(["--config", str(workplace.config)]) == 0
    (model,) = workplace.models
    assert workplace.output == [model.name, "tracking"]
    database.write_bytes(held[0])
    begun = the_run(workplace).info.run_id

    assert register.main(["--model", str(model)]) == 0
    run = the_run(workplace)
    assert (run.info.run_id, run.info.status) == (begun, "FINISHED")
    found = all_points(workplace.store(), begun)
    assert {("train_logloss", 20), ("train_logloss", 40), ("train_logloss", 60), ("test_auc", 63)} <= found.keys()
    assert set(found.values()) == {1}
    names = {artifact.path for artifact in workplace.store().list_artifacts(begun)}
    assert {"contract.json", "samples_quality.csv", "reliability.csv", "reliability.png"} <= names
    assert workplace.store().get_model_version_by_alias("mian", "newest").run_id == begun
    assert workplace.output == [model.name]

    def contract() -> Contract:
        return Contract.model_validate_json(mlflow.artifacts.load_text(f"{the_run(workplace).info.artifact_uri}/contract.json"))

    assert contract().days == workplace.contract.days
    assert register.main(["--model", str(model)]) == 0, "once more is no second version, and no second point"
    assert contract().days == workplace.contract.days, "what the run has is left as it is"
    assert len(workplace.store().search_model_versions("name = 'mian'")) == 1
    assert set(all_points(workplace.store(), begun).values()) == {1}


def test_a_training_that_went_on_without_the_store_is_in_its_run(workplace: Workplace) -> None:
    def stopped_at(step: int, uri: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            before_each_report(patch, lambda at: signal_at(at, step))
            return train.main(["--config", str(workplace.config), "log_every=10", f"tracking.uri={uri}"])

    store = f"sqlite:///{workplace.folder}/mlflow.db"
    assert [stopped_at(20, store), stopped_at(40, f"http://127.0.0.1:{closed_port()}"), stopped_at(0, store)] == [75, 75, 0]
    assert list(points(workplace, "train_logloss")) == [10, 20, 30, 40, 50, 60]


def signal_at(step: int, wanted: int) -> None:
    if step == wanted:
        signal.raise_signal(signal.SIGTERM)


def test_metrics_and_what_the_run_was_told_lie_in_the_model_s_folder(once_trained: Finished) -> None:
    (folder,) = once_trained.models
    metrics, record, run = read_metrics(folder), read_training(folder), the_run(once_trained)
    run_metrics = run.data.metrics
    assert metrics.test is not None
    assert {f"test_{name}": value for name, value in metrics.test.items()} == {
        name: value for name, value in run_metrics.items() if name.startswith("test_")
    }
    assert metrics.best_step == run_metrics["best_step"]
    assert metrics.validation["logloss"] == min(points(once_trained, "validation_logloss").values())
    assert run.data.tags[TRAINING_TAG] == record.training
    assert record.config["model"]["options"]["dropout"] == 0.1
    assert json.loads((folder / "metrics.json").read_text())["format"] == "mian-metrics"


def test_a_model_is_registered_in_another_store_with_what_its_folder_says(beside: Finished, capsys: Any) -> None:
    store = new_store(Path("other.db").absolute())
    (model,) = beside.models
    other = Path("other.yaml")
    other.write_text(beside.config.read_text().replace("0.003", "0.1"))
    arguments = ["--model", str(model), "--config", str(other), f"tracking.uri={store}", *OVERRIDES]
    assert register.main(arguments) == 1
    assert "optimizer.learning_rate is 0.1, and" in one_error(capsys)
    assert mlflow.MlflowClient(store).search_registered_models() == []

    assert register.main(["--model", str(model), f"tracking.uri={store}"]) == 0
    client = mlflow.MlflowClient(store)
    run = client.get_run(client.get_model_version_by_alias("mian", "newest").run_id)
    assert run.data.params["optimizer.learning_rate"] == "0.003"
    assert run.data.params == the_run(beside).data.params
    assert run.data.metrics["test_auc"] == the_run(beside).data.metrics["test_auc"]
    assert run.data.metrics["validation_auc"] == read_metrics(model).validation["auc"]


def test_a_model_whose_samples_are_gone_is_registered(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shutil.copytree(workplace.samples, samples := workplace.folder / "samples")
    command = ["--config", str(workplace.config), f"samples={samples}", "max_steps=3"]
    with monkeypatch.context() as patch:
        patch.setattr(mian.tracking.tracker, "register", refused)
        assert train.main(command) == 0
        shutil.rmtree(samples)
        (model,) = workplace.models
        assert register.main(["--model", str(model)]) == 1
        assert "is not registered: OSError: no room" in one_error(capsys)
        assert the_run(workplace).info.status == "FINISHED", "as it was before"
    assert register.main(["--model", str(model)]) == 0
    assert the_run(workplace).info.status == "FINISHED"
    (version,) = workplace.store().search_model_versions("name = 'mian'")
    assert version.run_id == the_run(workplace).info.run_id


def test_a_store_that_is_back_when_the_test_split_is_scored_gets_the_model(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    database = workplace.folder / "mlflow.db"
    held = take_away(database, monkeypatch, at=40)
    record_test = ModelKeeper.record_test
    refusals: list[str] = []

    def meanwhile(keeper: Any, trained: Any) -> None:
        database.write_bytes(held[0])
        assert register.main(["--model", keeper.folder]) == 1
        refusals.append(one_error(capsys))
        assert any(path.is_dir() for path in (workplace.folder / "models" / "tracking").iterdir())
        record_test(keeper, trained)

    monkeypatch.setattr(ModelKeeper, "record_test", meanwhile)
    assert train.main(["--config", str(workplace.config)]) == 0
    assert "this training is running already" in refusals[0]
    version = workplace.store().get_model_version_by_alias("mian", "newest")
    run = the_run(workplace)
    assert (str(version.version), version.run_id, run.info.status) == ("1", run.info.run_id, "FINISHED")
    assert "test_auc" in run.data.metrics
    assert workplace.output == [workplace.models[0].name], "nothing waits any more"


def refused(*arguments: Any) -> str:
    raise OSError("no room")


def test_a_folder_without_its_training_is_refused(beside: Finished, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(beside.models[0], copy := tmp_path / "copy")
    (copy / "training.json").unlink()
    assert register.main(["--model", str(copy)]) == 1
    assert f"{copy}/training.json: cannot be read" in one_error(capsys)


def test_a_configuration_of_another_release_is_refused_by_its_key(beside: Finished, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(beside.models[0], copy := tmp_path / "copy")
    record = json.loads((copy / "training.json").read_text())
    record["config"]["optimizer"]["warmth"] = 3
    (copy / "training.json").write_text(json.dumps(record))
    assert register.main(["--model", str(copy)]) == 1
    assert f"{copy}/training.json: damaged, or of another release: config.optimizer.warmth: " in one_error(capsys)


def test_the_password_of_a_store_is_printed_and_kept_nowhere(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://ann:s3cret@127.0.0.1:{closed_port()}"
    with caplog.at_level(logging.INFO):
        assert train.main(["--config", str(workplace.config), f"tracking.uri={uri}", "max_steps=2"]) == 0
    printed = capsys.readouterr()
    said = caplog.text + printed.out + printed.err
    assert "http://ann:***@" in said
    assert "s3cret" not in said
    (model,) = workplace.models
    kept = [path for path in model.parent.rglob("*") if path.is_file()]
    assert [path for path in kept if b"s3cret" in path.read_bytes()] == []
    assert register.main(["--model", str(model)]) == 1
    assert "the password of http://ann:***@" in one_error(capsys)
    assert register.main(["--model", str(model), f"tracking.uri=sqlite:///{workplace.folder}/mlflow.db"]) == 0
    run = the_run(workplace)
    assert run.data.params["tracking.uri"].startswith("http://ann:***@")


def test_a_test_split_that_cannot_be_scored_costs_no_model(workplace: Workplace, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(workplace.samples, samples := tmp_path / "spoiled")
    file = workplace.contract.split("test")[0].files[0]
    spoil(samples, workplace.contract, file.path, "context_slot", [0], float("nan"))
    for _ in range(2):  # started again, it is in the same run, and no second version
        assert train.main(["--config", str(workplace.config), f"samples={samples}"]) == 1
        (model,) = workplace.models
        error = one_error(capsys)
        assert f"the model is kept in {model}, but split test cannot be scored" in error
        assert load_servable(model).predict_proba is not None
        assert read_metrics(model).test is None
        version = workplace.store().get_model_version_by_alias("mian", "newest")
        assert (str(version.version), version.run_id) == ("1", the_run(workplace).info.run_id)
    assert math.isfinite(read_metrics(model).validation["logloss"] or math.nan)


def test_the_run_s_own_models_are_neither_registered_nor_deleted(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    client = workplace.store()
    run_id = client.create_run(experiment := client.create_experiment("mian")).info.run_id
    mlflow.set_tracking_uri(f"sqlite:///{workplace.folder}/mlflow.db")
    own = [mlflow.initialize_logged_model("own", source_run_id=run_id, experiment_id=experiment) for _ in range(2)]
    mlflow.finalize_logged_model(own[0].model_id, "READY")
    client.create_registered_model("mian")
    client.create_model_version("mian", f"models:/{own[0].model_id}", run_id, model_id=own[0].model_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)

    assert train.main(["--config", str(workplace.config), "max_steps=3"]) == 0
    first, second = sorted(client.search_model_versions("name = 'mian'"), key=lambda version: int(version.version))
    assert first.source == f"models:/{own[0].model_id}"
    logged = {model.model_id: model for model in client.search_logged_models([experiment])}
    assert logged.keys() == {own[0].model_id, own[1].model_id, second.source.removeprefix("models:/")}
    assert logged[second.source.removeprefix("models:/")].tags[TRAINING_TAG] == read_training(workplace.models[0]).training
    (model,) = workplace.models
    assert register.main(["--model", str(model)]) == 0, "once more is no third version"
    assert len(client.search_model_versions("name = 'mian'")) == 2


def test_the_alias_never_moves_back(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    caplog.set_level("INFO")
    client, database = workplace.store(), workplace.folder / "mlflow.db"

    def newest() -> str:
        return str(client.get_model_version_by_alias("mian", "newest").version)

    with monkeypatch.context() as patch:  # trained first, registered last
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
        assert train.main(["--config", str(workplace.config), "batch_size=64"]) == 0
    (unregistered,) = workplace.models
    assert train.main(["--config", str(workplace.config)]) == 0
    assert train.main(["--config", str(workplace.config), "batch_size=48"]) == 0
    _, first, second = workplace.models
    assert newest() == "2"
    store = f"tracking.uri=sqlite:///{database}"
    assert register.main(["--model", str(unregistered), store]) == 0
    assert (len(client.search_model_versions("name = 'mian'")), newest()) == (3, "2")
    assert "alias newest unchanged: it is at version 2, whose training ended later" in caplog.text
    assert register.main(["--model", str(first), store]) == 0
    assert newest() == "2"
    client.set_registered_model_alias("mian", "newest", "1")  # the owner goes back
    assert register.main(["--model", str(second), store]) == 0
    assert newest() == "1"


def test_a_trial_does_not_move_the_alias(workplace: Workplace) -> None:
    assert train.main(["--config", str(workplace.config)]) == 0
    assert train.main(["--config", str(workplace.config), "max_steps=2"]) == 0
    client = workplace.store()
    assert {str(version.version) for version in client.search_model_versions("name = 'mian'")} == {"1", "2"}
    assert str(client.get_model_version_by_alias("mian", "newest").version) == "1"


def test_stores_experiments_and_runs_that_can_never_work_are_errors_before_the_first_step(
    workplace: Workplace, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error_of(*overrides: str) -> str:
        store = f"tracking.uri=sqlite:///{workplace.folder}/mlflow.db"  # MLflow's own process would remember the last one
        assert train.main(["--config", str(workplace.config), store, *overrides]) == 1
        assert workplace.output == [], "nothing was trained, and nothing is left"
        return one_error(capsys)

    client = workplace.store()
    client.delete_experiment(client.create_experiment("gone"))
    assert "tracking.experiment: gone is deleted" in error_of("tracking.experiment=gone")
    assert "filesystem tracking backend" in error_of("tracking.uri=file:./mlruns")
    assert "can never take this run" in error_of("tracking.uri=mlruns")
    experiment = client.create_experiment("mian")
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "seed", "7")
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    assert f"MLFLOW_RUN_ID: run {run} is that of another training, its seed is 7" in error_of()
    client.delete_run(run)
    assert f"MLFLOW_RUN_ID: run {run} is deleted" in error_of()
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert "MLFLOW_RUN_ID: there is no run" in error_of()


@pytest.mark.parametrize("setting", ["alias=latest", "alias=v1", "registered_name=team/mian", "experiment=' '"])
def test_names_that_mlflow_refuses_are_errors_before_the_first_step(workplace: Workplace, capsys: Any, setting: str) -> None:
    assert train.main(["--config", str(workplace.config), f"tracking.{setting}"]) == 1
    assert f"tracking.{setting.partition('=')[0]}: " in one_error(capsys)
    assert workplace.output == []


@pytest.mark.parametrize("name", ["ü b", "a%20b"])
def test_a_folder_of_any_name_keeps_store_and_model(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place = workplace.folder / name
    place.mkdir()
    new_store(place / "mlflow.db")
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    assert train.main(["--config", str(workplace.config), f"output={place}/models", "max_steps=3"]) == 0
    (model,) = place.glob("models/mian-*")
    registered = load_model("models:/mian/1")
    for one, other in zip(registered.model.state_dict().values(), load_servable(model).model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert {path.name for path in place.iterdir()} == {"mlflow.db", "mlartifacts", "models"}


def test_a_model_loaded_from_a_server_leaves_nothing_behind(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary := workplace.folder / "temporary").mkdir()
    with tracking_server(workplace.folder) as uri:
        assert train.main(["--config", str(workplace.config), "max_steps=3", f"tracking.uri={uri}"]) == 0
        mlflow.set_tracking_uri(uri)
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        loaded = load_model("models:/mian/1")
    assert list(temporary.iterdir()) == []
    (model,) = workplace.models
    for name, weight in load_servable(model).model.state_dict().items():
        np.testing.assert_array_equal(loaded.model.state_dict()[name].numpy(), weight.numpy())
