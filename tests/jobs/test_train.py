"""The training job on a real MLflow store: what it records, and that it never loses a model."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import get_model_info

import mian.tracking.tracker
from jobs import evaluate, register, train
from jobs.configuration import load_config
from jobs.stop_signal import STOPPED
from mian.config import TrainConfig
from mian.contract import Contract
from mian.serving import load_servable
from mian.tracking.records import read_metrics
from mian.tracking.registry import load_model
from tests.factories import read_examples
from tests.jobs.conftest import (
    OVERRIDES,
    Finished,
    Workplace,
    assert_trace,
    before_each_report,
    closed_port,
    damaged_contracts,
    one_error,
    points,
    the_run,
)
from tests.support.stores import new_store
from tests.support.timeouts import seconds


def test_a_training_ends_with_one_finished_run(once_trained: Finished) -> None:
    assert once_trained.code == 0
    run = the_run(once_trained)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert once_trained.store().get_experiment(run.info.experiment_id).name == "mian"


def test_every_value_of_the_configuration_is_a_parameter(once_trained: Finished) -> None:
    config = load_config(TrainConfig, str(once_trained.config), OVERRIDES)
    (flat,) = pd.json_normalize(config.model_dump()).to_dict("records")
    params = the_run(once_trained).data.params
    assert params == {name: str(value) for name, value in flat.items()} | {"ranks": "1"}
    assert params["evaluations_per_epoch"] == "2"
    assert params["model.options.dropout"] == "0.1"
    assert params["optimizer.beta2"] == "0.999"


def test_tags_say_what_was_trained_on_and_by_which_code(once_trained: Finished) -> None:
    tags = the_run(once_trained).data.tags
    contract = once_trained.contract
    assert tags["mian.version"] == "0.1.0"
    assert re.fullmatch("[0-9a-f]{64}", tags["mian.code"])
    assert tags["mian.samples"] == str(once_trained.samples)
    assert tags["mian.contract"] == contract.name
    assert tags["mian.contract.fields"] == contract.fields_fingerprint
    assert tags["mian.contract.vocabularies"] == contract.vocabulary_fingerprint
    assert tags["mian.contract.config"] == contract.config_fingerprint
    assert tags["mian.contract.code"] == contract.code_fingerprint


def test_curves_have_their_points(once_trained: Finished) -> None:
    assert list(points(once_trained, "train_logloss")) == [20, 40, 60]
    assert list(points(once_trained, "samples_per_second")) == [20, 40, 60]
    for metric in ("logloss", "auc", "gauc", "calibration"):
        assert list(points(once_trained, f"validation_{metric}")) == [32, 63]


def test_where_the_time_goes_is_in_the_run(once_trained: Finished) -> None:
    shares = [points(once_trained, f"time_{part}_share") for part in ("waiting", "computing", "exchanging")]
    for step in (20, 40, 60):
        assert all(0 <= share[step] <= 1 for share in shares)
        assert sum(share[step] for share in shares) == pytest.approx(1)


def test_a_profile_names_the_parts_of_a_step(workplace: Workplace, tmp_path: Path) -> None:
    assert train.main(["--profile", "--config", str(workplace.config), "max_steps=20"]) == 0
    (path,) = workplace.folder.glob("models/profiles/*/rank-0.json")
    assert_trace(path, steps=5)
    logged = workplace.store().download_artifacts(the_run(workplace).info.run_id, "profiles/rank-0.json", str(tmp_path))
    assert Path(logged).read_bytes() == path.read_bytes()
    assert [name[:5] for name in workplace.output] == ["mian-", "profi"]


def test_a_training_too_short_for_a_profile_says_so(workplace: Workplace, caplog: Any) -> None:
    assert train.main(["--profile", "--config", str(workplace.config), "max_steps=5"]) == 0
    assert "no trace, the training ended within its first 10 steps" in caplog.text


def test_test_metrics_are_those_of_the_best_weights(once_trained: Finished) -> None:
    losses = points(once_trained, "validation_logloss")
    best = min(losses, key=lambda step: losses[step])
    assert list(points(once_trained, "best_step").values()) == [best]
    rows = sum(day.rows for day in once_trained.contract.split("test"))
    assert points(once_trained, "test_rows") == {best: rows}
    assert 0.55 < points(once_trained, "test_auc")[best] < 1
    assert f"AUC {points(once_trained, 'test_auc')[best]:.5f}" in once_trained.log


def test_artifacts_are_there(once_trained: Finished, tmp_path: Path) -> None:
    client, run_id = once_trained.store(), the_run(once_trained).info.run_id
    names = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert {"contract.json", "samples_quality.csv", "reliability.png", "reliability.csv"} <= names
    contract = Contract.from_json(Path(client.download_artifacts(run_id, "contract.json", str(tmp_path))).read_text())
    assert contract == once_trained.contract
    table = pd.read_csv(client.download_artifacts(run_id, "reliability.csv", str(tmp_path)))
    assert table["count"].sum() == sum(day.rows for day in contract.split("test"))
    assert Path(client.download_artifacts(run_id, "reliability.png", str(tmp_path))).read_bytes().startswith(b"\x89PNG")


def test_a_calibration_is_in_the_model_its_metrics_and_the_run(workplace: Workplace, tmp_path: Path, caplog: Any) -> None:
    settings = ["calibration=platt", "epochs=2", "optimizer.learning_rate=1e-2", "checkpoint.enabled=false"]
    assert train.main(["--config", str(workplace.config), *settings]) == 0
    (folder,) = workplace.models
    kept = json.loads((folder / "metrics.json").read_text())
    found = kept["calibration"]
    assert found["left_out"] is None
    assert kept["validation_is"] == "before calibration"
    assert found["validation_before"]["logloss"] == pytest.approx(kept["validation"]["logloss"], abs=1e-6)
    assert found["validation_after"]["logloss"] < found["validation_before"]["logloss"]
    assert found["validation_after"]["calibration"] == pytest.approx(1, abs=1e-5)
    assert load_servable(folder).model.calibration == (found["scale"], found["offset"])

    client, run = workplace.store(), the_run(workplace)
    for name, value in read_metrics(folder).points()[1][0].items():
        assert run.data.metrics[name] == pytest.approx(value, abs=1e-9), name
    assert run.data.metrics["calibration_scale"] == found["scale"]
    assert run.data.metrics["uncalibrated_test_calibration"] == found["test_before"]["calibration"]
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"reliability.png", "reliability.csv", "reliability_uncalibrated.csv"} <= names
    tables = [
        pd.read_csv(client.download_artifacts(run.info.run_id, f"{name}.csv", str(tmp_path)))
        for name in ("reliability", "reliability_uncalibrated")
    ]
    means = [np.average(table["mean_predicted"], weights=table["count"]) for table in tables]
    rates = [np.average(table["observed_rate"], weights=table["count"]) for table in tables]
    assert rates[0] == pytest.approx(rates[1])
    assert means[0] / rates[0] == pytest.approx(kept["test"]["calibration"], abs=1e-6)
    assert means[1] / rates[1] == pytest.approx(found["test_before"]["calibration"], abs=1e-6)


def test_system_metrics_are_on(once_trained: Finished) -> None:
    assert "system/cpu_utilization_percentage" in the_run(once_trained).data.metrics


def test_the_model_is_registered_with_signature_and_example(beside: Finished) -> None:
    client = beside.store()
    version = client.get_model_version_by_alias("mian", "newest")
    assert (str(version.version), version.run_id) == ("1", the_run(beside).info.run_id)
    mlflow.set_tracking_uri(f"sqlite:///{beside.folder}/mlflow.db")
    info = get_model_info("models:/mian@newest")
    assert info.signature.inputs.input_names() == [field.column for field in beside.contract.fields]
    assert info.signature.outputs.input_names() == ["probability"]
    assert info.saved_input_example_info is not None
    assert "models:/mian/1" in beside.log


def test_the_registered_model_gives_the_scores_of_evaluation_for_raw_rows(beside: Finished, capsys: Any) -> None:
    """What is served is what was trained: raw rows by pyfunc, samples by the stream, the same impressions."""
    uri = f"sqlite:///{beside.folder}/mlflow.db"
    arguments = ["--model", "models:/mian/1", "--samples", str(beside.samples), "--tracking-uri", uri]
    assert evaluate.main([*arguments, "--predictions", "predictions.parquet"]) == 0
    evaluated = pd.read_parquet("predictions.parquet").set_index("impression_id")["probability"]
    raw = read_examples(beside.samples, beside.contract, "test")
    served = mlflow.pyfunc.load_model("models:/mian@newest").predict(raw)["probability"]
    assert len(raw) == 40
    np.testing.assert_allclose(served, evaluated[raw["impression_id"]], atol=1e-6, rtol=0)


def test_the_kept_folder_is_the_registered_model(beside: Finished) -> None:
    (folder,) = beside.models
    assert folder.name in beside.log
    raw = read_examples(beside.samples, beside.contract, "test")
    mlflow.set_tracking_uri(f"sqlite:///{beside.folder}/mlflow.db")
    registered = load_model("models:/mian@newest")
    np.testing.assert_array_equal(load_model(str(folder)).predict_proba(raw), registered.predict_proba(raw))


def test_a_second_training_is_version_2_and_takes_the_alias(once_trained: Finished, workplace: Workplace) -> None:
    shutil.copy(once_trained.folder / "mlflow.db", workplace.folder)
    assert train.main(["--config", str(workplace.config), "epochs=1", "seed=1", "tracking.run_name=second"]) == 0
    client = workplace.store()
    assert {str(version.version) for version in client.search_model_versions("name = 'mian'")} == {"1", "2"}
    newest = client.get_model_version_by_alias("mian", "newest")
    assert str(newest.version) == "2"
    assert client.get_run(newest.run_id).info.run_name == "second"


def test_a_server_that_is_not_there_costs_the_record_and_not_the_model(workplace: Workplace, caplog: Any) -> None:
    with seconds(60):
        assert train.main(["--config", str(workplace.config), f"tracking.uri=http://127.0.0.1:{closed_port()}"]) == 0
    (folder,) = workplace.models
    said = [
        record.getMessage()
        for record in caplog.records
        if record.name in ("mian.tracking.model_keeper", "mian.tracking.session", "mian.tracking.tracker")
    ]
    assert sum("does not answer, training goes on without it" in line for line in said) == 1
    assert f"python jobs/register.py --model {folder}" in said[-1]

    store = f"tracking.uri=sqlite:///{workplace.folder}/mlflow.db"
    assert register.main(["--model", str(folder), store]) == 0
    version = workplace.store().get_model_version_by_alias("mian", "newest")
    assert str(version.version) == "1"
    assert the_run(workplace).info.status == "FINISHED"
    assert the_run(workplace).info.run_id == version.run_id
    raw = read_examples(workplace.samples, workplace.contract, "test")
    registered = mlflow.pyfunc.load_model("models:/mian@newest").predict(raw)["probability"]
    np.testing.assert_allclose(registered, load_servable(folder).predict_proba(raw), atol=1e-6, rtol=0)


def test_a_store_that_goes_away_during_training_costs_the_record_and_not_the_model(
    workplace: Workplace, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_store(step: int) -> None:
        if step == 40:
            Path("mlflow.db").write_bytes(b"no database any more " * 500)

    before_each_report(monkeypatch, break_store)
    monkeypatch.setattr(mian.tracking.tracker, "FLUSH_SECONDS", 0.0)
    with seconds(60):
        assert train.main(["--config", str(workplace.config)]) == 0
    (folder,) = workplace.models
    assert load_servable(folder).contract.fields == workplace.contract.fields
    said = [
        record.getMessage()
        for record in caplog.records
        if record.name in ("mian.tracking.model_keeper", "mian.tracking.session", "mian.tracking.tracker")
    ]
    assert [line for line in said if "does not answer" in line] == said[:1]
    assert str(folder) in said[-1]

    store = new_store(Path("new.db").absolute())
    assert register.main(["--model", str(folder), "--config", str(workplace.config), f"tracking.uri={store}"]) == 0
    client = mlflow.MlflowClient(store)
    assert str(client.get_model_version_by_alias("mian", "newest").version) == "1"


def test_register_says_in_one_line_what_is_wrong(workplace: Workplace, capsys: Any) -> None:
    for model, expected in (("no-folder", "no-folder: no model"), (str(workplace.samples), f"{workplace.samples}: no model")):
        assert register.main(["--model", model, "--config", str(workplace.config)]) == 1
        assert expected in one_error(capsys)


def test_a_model_may_stay_unregistered(workplace: Workplace) -> None:
    assert train.main(["--config", str(workplace.config), "max_steps=3", "tracking.registered_name=null"]) == 0
    assert workplace.store().search_registered_models() == []
    assert len(workplace.output) == 1


def test_a_training_that_is_told_to_stop_can_go_on_in_its_run(workplace: Workplace) -> None:
    def stop(step: int) -> None:
        if step == 40:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, stop)
        assert train.main(["--config", str(workplace.config)]) == 75
    assert the_run(workplace).info.status == "KILLED"
    assert list(points(workplace, "train_logloss")) == [20, 40]
    assert workplace.output == ["checkpoints", "tracking"]
    assert signal.getsignal(signal.SIGTERM) is before

    assert train.main(["--config", str(workplace.config), "log_every=10", "tracking.run_name=other"]) == 0
    assert the_run(workplace).info.status == "FINISHED", "and there is no second run"
    assert list(points(workplace, "train_logloss")) == [20, 40, 50, 60]
    (model,) = workplace.models
    assert model.name.startswith("mian-")


def test_other_settings_are_another_training(workplace: Workplace) -> None:
    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, lambda step: signal.raise_signal(signal.SIGTERM))
        assert train.main(["--config", str(workplace.config)]) == STOPPED
    assert train.main(["--config", str(workplace.config), "seed=1", "max_steps=2"]) == 0
    assert len(list((workplace.folder / "models" / "checkpoints").iterdir())) == 1, "the first one's are still there"


def test_a_second_sigterm_ends_it_at_once(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(step: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    before_each_report(monkeypatch, stop)
    with pytest.raises(SystemExit) as ended:
        train.main(["--config", str(workplace.config)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert the_run(workplace).info.status == "FAILED"
    assert workplace.output == []


def test_damaged_checkpoints_end_it_with_one_error(workplace: Workplace, capsys: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, lambda step: signal.raise_signal(signal.SIGTERM))
        assert train.main(["--config", str(workplace.config)]) == STOPPED
    for path in workplace.folder.glob("models/checkpoints/*/step-*/state.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    capsys.readouterr()
    assert train.main(["--config", str(workplace.config)]) == 1
    assert "none of its 1 checkpoints can be read; remove the folder to start anew" in one_error(capsys)


def test_a_training_that_diverges_ends_with_one_error_and_a_failed_run(workplace: Workplace, capsys: Any) -> None:
    assert train.main(["--config", str(workplace.config), "optimizer.learning_rate=1e30"]) == 1
    assert "rank 0: step 2 cannot be done, the loss or a gradient is no number" in one_error(capsys)
    assert the_run(workplace).info.status == "FAILED"


def test_an_output_that_cannot_be_is_an_error_before_the_training(workplace: Workplace, capsys: Any) -> None:
    assert train.main(["--config", str(workplace.config), f"output={workplace.config}/models"]) == 1
    assert "output" in one_error(capsys)


def test_a_contract_that_cannot_be_used_is_one_error(workplace: Workplace, capsys: Any) -> None:
    arguments = ["--config", str(workplace.config), "samples=damaged"]
    assert train.main(arguments) == 1
    assert "damaged/contract.json: no such file" in one_error(capsys)
    for document, expected in damaged_contracts(workplace.contract).items():
        Path("damaged").mkdir(exist_ok=True)
        Path("damaged/contract.json").write_text(document)
        assert train.main(arguments) == 1
        assert expected in one_error(capsys)


def test_a_launcher_that_horovod_does_not_know_is_refused(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert train.main(["--config", str(workplace.config)]) == 1
    assert "a launcher that Horovod does not know started 2 processes" in one_error(capsys)
    assert workplace.output == []
