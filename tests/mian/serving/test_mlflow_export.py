import datetime as dt
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import convert_input_example_to_serving_input
from mlflow.pyfunc.scoring_server import invocations

from mian.serving import explain, input_example, load_servable
from mian.serving.code import code_digest, imported_package
from mian.serving.mlflow_export import log_servable
from mian.tracking.registry import load_model
from tests.factories import write_day

MODEL = "models:/ctr/1"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow puts the code of each model that it loads before everything else, and leaves it there."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server's database."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri := f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")
    yield uri
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def registered(trained_once: Any, store: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Logged and registered, the artifacts beside the servable folder."""
    folder = tmp_path_factory.mktemp("saved")
    trained_once.save(folder / "servable")
    experiment = mlflow.create_experiment("serving", artifact_location=(folder / "artifacts").as_uri())
    path = list(sys.path)
    with mlflow.start_run(experiment_id=experiment):
        log_servable(folder / "servable", input_example(trained_once.contract, trained_once.samples), "ctr")
    assert sys.path == path
    return trained_once


def test_the_registered_model_gives_what_the_model_gives(registered: Any, raw: pd.DataFrame) -> None:
    got = mlflow.pyfunc.load_model(MODEL).predict(raw)
    assert list(got.columns) == ["probability"]
    assert got.index.equals(raw.index)
    np.testing.assert_allclose(got["probability"], registered.probabilities(raw), atol=1e-6)


def test_the_scoring_server_gives_what_the_model_gives(registered: Any, raw: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(MODEL)
    records = raw.astype(object).where(raw.notna(), None).to_dict("records")
    for payload in (convert_input_example_to_serving_input(raw), json.dumps({"dataframe_records": records})):
        answer = invocations(payload, "application/json", model, model.metadata.get_input_schema())
        assert answer.status == 200
        predictions = [row["probability"] for row in json.loads(answer.response)["predictions"]]
        np.testing.assert_allclose(predictions, registered.probabilities(raw), atol=1e-6)


def test_the_scoring_server_explains_where_it_is_asked_to(registered: Any, raw: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(MODEL)
    records = raw.astype(object).where(raw.notna(), None).to_dict("records")
    asked = json.dumps({"dataframe_records": records, "params": {"explain": True}})
    answer = invocations(asked, "application/json", model, model.metadata.get_input_schema())
    assert answer.status == 200
    predictions = json.loads(answer.response)["predictions"]
    np.testing.assert_allclose([row["probability"] for row in predictions], registered.probabilities(raw), atol=1e-6)
    for row, expected in zip(predictions, explain(load_model(MODEL), raw), strict=True):
        assert [line["name"] for line in row["explanation"]] == expected["name"].tolist()
        assert [line["value"] for line in row["explanation"]] == expected["value"].tolist()
        np.testing.assert_allclose([line["weight"] for line in row["explanation"]], expected["weight"])


def test_json_without_a_decimal_point_is_a_number(registered: Any, raw: pd.DataFrame) -> None:
    row = raw.iloc[0].to_dict() | {"candidate_price": 3, "behavior_gap": [1, 30]}
    model = mlflow.pyfunc.load_model(MODEL)
    payload = json.dumps({"dataframe_records": [row]})
    answer = invocations(payload, "application/json", model, model.metadata.get_input_schema())
    (prediction,) = json.loads(answer.response)["predictions"]
    assert prediction["probability"] == pytest.approx(registered.probabilities(pd.DataFrame([row]))[0], abs=1e-6)


def test_the_scoring_server_says_what_is_wrong_with_a_row(registered: Any, raw: pd.DataFrame) -> None:
    model = mlflow.pyfunc.load_model(MODEL)
    row: dict[str, Any] = raw.iloc[0].to_dict()
    for wrong, message in (
        ({name: value for name, value in row.items() if name != "user_age"}, "lacks the column user_age"),
        (row | {"behavior_gap": [1.0]}, "row 0: the lists of a row must be of one length"),
    ):
        with pytest.raises(MlflowException, match=message) as error:
            invocations(json.dumps({"dataframe_records": [wrong]}), "application/json", model, model.metadata.get_input_schema())
        assert error.value.get_http_status_code() == 400


def test_the_signature_and_the_example_are_registered(registered: Any) -> None:
    metadata = mlflow.pyfunc.load_model(MODEL).metadata
    inputs = metadata.get_input_schema().input_dict()
    assert list(inputs) == [field.column for field in registered.contract.fields]
    assert not any(column.required for column in inputs.values())
    assert metadata.get_output_schema().input_names() == ["probability"]
    example = metadata.load_input_example()
    assert list(example.columns) == list(inputs)
    assert len(mlflow.pyfunc.load_model(MODEL).predict(example)) == len(example)


def test_requirements_are_exact_and_nothing_is_pickled(registered: Any, tmp_path: Path) -> None:
    local = Path(mlflow.artifacts.download_artifacts(MODEL, dst_path=str(tmp_path / "download")))
    lines = (local / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in lines} == {"mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic", "fsspec"}
    assert all("==" in line and "+" not in line for line in lines)
    assert not list(local.rglob("*.pkl"))
    assert [path.name for path in (local / "code").iterdir()] == ["mian"]


IN_ANOTHER_PLACE = """
import json, pathlib, sys
root, uri, model, raw = sys.argv[1:]
sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != pathlib.Path(root)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import mlflow, pandas
mlflow.set_tracking_uri(uri)
got = mlflow.pyfunc.load_model(model).predict(pandas.read_pickle(raw))
ours = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("mian", "pipeline")}
print(json.dumps([got["probability"].tolist(), ours]))
"""


def test_it_loads_where_the_project_is_not_installed(registered: Any, store: str, raw: pd.DataFrame, tmp_path: Path) -> None:
    raw.to_pickle(tmp_path / "raw.pickle")
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_ANOTHER_PLACE, str(ROOT), store, MODEL, str(tmp_path / "raw.pickle")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    probabilities, modules = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(probabilities, registered.probabilities(raw), atol=1e-6)
    assert modules, "the model's code was imported"
    assert not {name: file for name, file in modules.items() if Path(file).is_relative_to(ROOT)}
    used = {".".join(name.split(".")[:2]) for name in modules}
    rooms = ("contract", "fingerprint", "kernels", "layers", "models", "scoring", "serving")
    assert used == {"mian", *(f"mian.{room}" for room in rooms)}


def test_code_that_differs_from_what_is_imported_is_refused(registered: Any, raw: pd.DataFrame, tmp_path: Path) -> None:
    model = Path(mlflow.artifacts.download_artifacts(MODEL, dst_path=str(tmp_path / "download")))
    assert mlflow.pyfunc.load_model(str(model)).metadata.metadata["code"] == code_digest(imported_package())
    trainer = model / "code" / "mian" / "training" / "trainer.py"
    trainer.write_text(trainer.read_text() + "\n# what no served model runs\n")
    np.testing.assert_allclose(
        mlflow.pyfunc.load_model(str(model)).predict(raw)["probability"], registered.probabilities(raw), atol=1e-6
    )
    for name in ("mian/layers/score.py", "mian/contract/encoder.py"):
        other = shutil.copytree(model, tmp_path / Path(name).stem)
        changed = other / "code" / name
        changed.write_text(changed.read_text() + "\n# other code\n")
        with pytest.raises(
            Exception, match=r"brings its own code along.*load models of different code in processes of their own"
        ):
            mlflow.pyfunc.load_model(str(other))


def test_the_example_is_made_of_kept_rows_where_there_are_any(trained: Any, raw: pd.DataFrame) -> None:
    table = pa.table({name: pa.array(raw[name], from_pandas=True) for name in raw.columns}).append_column(
        "label", [[0] * len(raw)]
    )
    day = write_day(Path(trained.samples), dt.date(2024, 1, 1), [], examples=table, rows=9, positives=1)
    example = input_example(trained.contract.model_copy(update={"days": (day,)}), trained.samples, rows=3)
    assert list(example.columns) == list(raw.columns)
    assert example["behavior_item_id"].tolist() == raw["behavior_item_id"].tolist()[:3]
    assert example["candidate_price"].dtype == np.float64


def test_the_example_can_be_made_of_vocabularies(trained: Any, tmp_path: Path) -> None:
    trained.save(tmp_path / "servable")
    example = input_example(trained.contract, trained.samples, rows=3)
    assert example["candidate_item_id"].tolist() == ["i0", "i1", "i2"]
    assert example["behavior_item_id"].tolist() == [["i0"], ["i0", "i1"], ["i0", "i1", "i2"]]
    assert example["user_age"].tolist() == ["20s", "30s", "20s"]
    assert len(load_servable(tmp_path / "servable").predict_proba(example)) == 3
