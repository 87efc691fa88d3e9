"""The evaluation job on a model in a real MLflow store."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss, roc_auc_score

from jobs import evaluate, train
from mian.contract import Contract, NumericTransform
from tests.factories import rewrite, write_contract
from tests.jobs.conftest import Finished, damaged_contracts, extended, one_error
from tests.support.timeouts import seconds


@pytest.fixture
def run(beside: Finished) -> Callable[..., int]:
    """Evaluates the registered model on the samples that it was trained on, unless told otherwise."""

    def evaluate_(*more: object, model: object = "models:/mian/1", samples: object = beside.samples) -> int:
        uri = f"sqlite:///{beside.folder}/mlflow.db"
        return evaluate.main(["--model", str(model), "--samples", str(samples), "--tracking-uri", uri, *map(str, more)])

    return evaluate_


def split_rows(place: Finished, split: str) -> pd.DataFrame:
    """A split's rows in the order of the contract's files."""
    files = [file.path for day in place.contract.split(split) for file in day.files]
    return pd.concat([pq.read_table(place.samples / path).to_pandas() for path in files], ignore_index=True)


def write_truth(folder: str, rows: pd.DataFrame) -> None:
    Path(folder).mkdir()
    probability = np.where(rows["label"] == 1, 0.9, 0.2) - np.linspace(0, 0.15, len(rows))
    attainable = 0.8 * probability + 0.1 + 0.1 * np.sin(np.arange(len(rows)))
    truth = pd.DataFrame({"impression_id": rows["impression_id"], "probability": probability, "attainable": attainable})
    truth.sample(frac=1, random_state=0).to_parquet(f"{folder}/part-00000.parquet", index=False)


def changed(place: Finished, folder: str, **changes: Any) -> str:
    """A copy of the samples with another contract."""
    shutil.copytree(place.samples, folder)
    contract = Contract.model_validate(place.contract.model_dump() | changes)
    write_contract(Path(folder), contract)
    return folder


def test_the_table_has_the_model_the_baselines_and_what_is_attainable(
    run: Callable[..., int], beside: Finished, capsys: Any
) -> None:
    rows = split_rows(beside, "test")
    write_truth("truth", rows)
    more = ["--compare", "popularity", "logistic_regression", "--truth", "truth"]
    assert run(*more, "--json", "table.json", "--predictions", "predictions.parquet") == 0

    predictions = pd.read_parquet("predictions.parquet")
    assert list(predictions["impression_id"]) == list(rows["impression_id"])
    assert list(predictions["label"]) == list(rows["label"])
    table = json.loads(Path("table.json").read_text())
    assert list(table) == ["model", "popularity", "logistic_regression", "attainable", "upper bound"]
    labels, probabilities = predictions["label"], predictions["probability"]
    assert table["model"]["auc"] == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-9)
    assert table["model"]["logloss"] == pytest.approx(log_loss(labels, probabilities), abs=1e-9)
    truth = pd.read_parquet("truth").set_index("impression_id").loc[predictions["impression_id"]]
    bound, attainable = (roc_auc_score(labels, truth[column]) for column in ("probability", "attainable"))
    assert table["upper bound"]["auc"] == pytest.approx(bound, abs=1e-9)
    assert table["attainable"]["auc"] == pytest.approx(attainable, abs=1e-9)
    assert table["attainable"]["share"] == 1
    for row in table.values():
        assert row["rows"] == len(rows)
        assert row["share"] == pytest.approx((row["auc"] - 0.5) / (attainable - 0.5), abs=1e-9)

    printed = capsys.readouterr().out
    assert printed.startswith(f"models:/mian/1 on split test of {beside.samples}")
    assert f"{table['model']['auc']:.5f}" in printed
    assert all(name in printed for name in table)


def test_a_report_is_a_page_of_the_same_figures(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    write_truth("truth", split_rows(beside, "test"))
    page = Path("pages/new/report.html")
    assert run("--compare", "popularity", "--truth", "truth", "--report", page, "--json", "table.json") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}"
    assert list(page.parent.iterdir()) == [page]
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3
    for name, row in json.loads(Path("table.json").read_text()).items():
        assert f"<tr><td>{name}</td><td>{row['auc']:.5f}</td><td>{row['logloss']:.5f}</td>" in text
    assert "models:/mian/1" in text
    first = text
    assert run("--report", page, "--split", "validation") == 0
    assert page.read_text(encoding="utf-8") != first, "it is replaced"
    assert list(page.parent.iterdir()) == [page]


def test_an_isotonic_regression_of_another_split_is_a_row_and_a_curve_beside_the_model(
    run: Callable[..., int], beside: Finished
) -> None:
    assert run("--json", "plain.json") == 0
    assert (
        run("--isotonic", "validation", "--json", "table.json", "--report", "report.html", "--predictions", "test.parquet") == 0
    )
    assert run("--split", "validation", "--predictions", "validation.parquet") == 0
    found, plain = (json.loads(Path(name).read_text()) for name in ("table.json", "plain.json"))
    assert list(found) == ["model", "isotonic"]
    test, validation = pd.read_parquet("test.parquet"), pd.read_parquet("validation.parquet")
    regression = IsotonicRegression(out_of_bounds="clip").fit(validation["probability"], validation["label"])
    expected = regression.predict(test["probability"])
    assert found["isotonic"]["auc"] == pytest.approx(roc_auc_score(test["label"], expected), abs=1e-9)
    assert found["isotonic"]["calibration"] == pytest.approx(expected.mean() / test["label"].mean(), abs=1e-9)
    assert found["isotonic"]["distinct_scores"] == len(np.unique(expected)) < found["model"]["distinct_scores"]
    assert {name: value for name, value in found["model"].items() if name != "distinct_scores"} == plain["model"]
    text = Path("report.html").read_text(encoding="utf-8")
    assert f"<td>isotonic</td><td>{found['isotonic']['auc']:.5f}</td>" in text
    assert "an isotonic regression that was fitted on split validation" in text


def test_an_isotonic_regression_of_the_evaluated_split_is_refused(run: Callable[..., int], capsys: Any) -> None:
    assert run("--isotonic", "test") == 1
    assert "--isotonic: the regression would be fitted on split test, which is evaluated; give another split" in one_error(capsys)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("report.txt", "report.txt does not end in .html; give a name that does"),
        ("report", "report does not end in .html"),
        ("file/report.html", "file/report.html cannot be written"),
        ("/proc/report.html", "/proc/report.html cannot be written"),
        ("folder.html", "folder.html is a folder; give the name of a file"),
    ],
)
def test_a_report_that_cannot_be_written_is_told_before_anything_is_scored(
    run: Callable[..., int], capsys: Any, monkeypatch: pytest.MonkeyPatch, report: str, said: str
) -> None:
    Path("file").touch()
    Path("folder.html").mkdir()
    monkeypatch.setattr(evaluate, "load_model", lambda model: pytest.fail("the model is loaded"))
    assert run("--report", report) == 1
    assert f"--report: {said}" in one_error(capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder.html"]


def test_without_the_truth_there_is_no_share(run: Callable[..., int]) -> None:
    assert run("--json", "table.json") == 0
    assert list(json.loads(Path("table.json").read_text())) == ["model"]
    assert "share" not in json.loads(Path("table.json").read_text())["model"]


def test_every_way_to_name_the_model_is_the_same_model(run: Callable[..., int], beside: Finished) -> None:
    tables = []
    for model in ("models:/mian/1", "models:/mian@newest", beside.models[0]):
        assert run("--json", "table.json", "--split", "validation", model=model) == 0
        tables.append(json.loads(Path("table.json").read_text()))
    assert tables[0] == tables[1] == tables[2]
    assert tables[0]["model"]["rows"] == len(split_rows(beside, "validation"))


def test_scores_are_those_of_the_training(run: Callable[..., int], beside: Finished) -> None:
    assert run("--json", "table.json") == 0
    client = beside.store()
    metrics = client.get_run(client.get_model_version_by_alias("mian", "newest").run_id).data.metrics
    table = json.loads(Path("table.json").read_text())["model"]
    for name in ("auc", "logloss", "gauc", "calibration", "rows", "positives"):
        assert table[name] == pytest.approx(metrics[f"test_{name}"], abs=1e-6)


def test_a_position_as_in_serving_is_what_the_model_reads_where_a_request_leaves_it_out(
    run: Callable[..., int], beside: Finished, capsys: Any
) -> None:
    shutil.copytree(beside.models[0], "positions")
    description = json.loads(Path("positions/model.json").read_text())
    Path("positions/model.json").write_text(json.dumps(description | {"stand_ins": {"context_slot": 0.0}}))
    assert run("--position", "serving", "--predictions", "serving.parquet", model="positions") == 0
    assert "known only after ranking as in serving" in capsys.readouterr().out

    shutil.copytree(beside.samples, "replaced")
    contract = beside.contract
    for file in [file for day in contract.split("test") for file in day.files]:
        contract = rewrite(Path("replaced"), contract, file.path, without_slots)
    assert run("--predictions", "replaced.parquet", samples="replaced") == 0
    assert run("--predictions", "logged.parquet", model="positions") == 0
    found, right, logged = (pd.read_parquet(f"{name}.parquet")["probability"] for name in ("serving", "replaced", "logged"))
    pd.testing.assert_series_equal(found, right, check_exact=True)
    assert (found != logged).mean() > 0.3, "with the positions of the log the scores are others"


def without_slots(rows: pa.Table) -> pa.Table:
    place = rows.column_names.index("context_slot")
    return rows.set_column(place, rows.schema.field(place), pa.array(np.zeros(len(rows), np.float32)))


def test_a_model_without_a_position_cannot_be_evaluated_as_in_serving(
    run: Callable[..., int], beside: Finished, capsys: Any
) -> None:
    assert run("--position", "serving") == 1
    assert "train it again with position_fields" in one_error(capsys)


def test_samples_of_other_fields_are_an_error_that_names_them(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    kept = [field for field in beside.contract.fields if field.column != "user_visits"]
    other = NumericTransform(kind="log", mean=0.0, std=1.0)
    fields = [field.model_copy(update={"transform": other}) if field.name == "price" else field for field in kept]
    assert run(samples=changed(beside, "others", fields=fields)) == 1
    error = one_error(capsys)
    assert "field user_visits is missing" in error
    assert "field candidate_price is of another kind or transform" in error


def test_samples_of_another_vocabulary_are_an_error_that_names_it(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    vocabularies = [
        vocabulary.model_copy(update={"sha256": "0" * 64}) if vocabulary.name == "item" else vocabulary
        for vocabulary in beside.contract.vocabularies
    ]
    assert run(samples=changed(beside, "others", vocabularies=vocabularies)) == 1
    assert "vocabulary item has other contents" in one_error(capsys)


def test_values_that_a_vocabulary_got_later_are_unknown_to_the_model(run: Callable[..., int], beside: Finished) -> None:
    size = beside.contract.vocabulary("item").size
    assert run("--predictions", "unknown.parquet", samples=extended(beside, "unknown", 1)) == 0
    right = pd.read_parquet("unknown.parquet")["probability"]
    for new_id in (size, size + 1):
        assert run("--predictions", "later.parquet", samples=extended(beside, f"later-{new_id}", new_id)) == 0
        pd.testing.assert_series_equal(pd.read_parquet("later.parquet")["probability"], right, check_exact=True)
    assert run("--predictions", "plain.parquet") == 0
    plain = pd.read_parquet("plain.parquet")["probability"]
    assert (plain != right).mean() > 0.3, "with known items the scores are others"


def test_a_vocabulary_that_does_not_begin_with_the_models_own_is_refused(
    run: Callable[..., int], beside: Finished, capsys: Any
) -> None:
    assert run(samples=extended(beside, "moved", 1, "in front")) == 1
    assert "vocabulary item has other contents" in one_error(capsys)


def test_a_split_whose_negatives_were_thinned_is_refused(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    (test_day,) = beside.contract.split("test")
    days = [day.model_copy(update={"negatives_kept": 0.25}) if day == test_day else day for day in beside.contract.days]
    folder = changed(beside, "thinned", days=days)
    assert run(samples=folder) == 1
    assert f"split 'test' cannot be scored: {test_day.day} kept 0.25 of its negatives" in one_error(capsys)
    assert run("--split", "validation", samples=folder) == 0
    for splits in ([], ["validation_split=test", "test_split=null"]):
        assert train.main(["--config", str(beside.config), f"samples={folder}", "output=models", *splits]) == 1
        assert "split 'test' cannot be scored" in one_error(capsys)
    assert not list(Path("models").glob("mian-*"))


def with_one_class(place: Finished, folder: str, split: str) -> str:
    """A copy of the samples whose rows of a split all have label 0."""
    shutil.copytree(place.samples, folder)
    contract = place.contract

    def without_clicks(table: pa.Table) -> pa.Table:
        labels = pa.array([0] * len(table), table.schema.field("label").type)
        return table.set_column(table.column_names.index("label"), "label", labels)

    for file in (file for day in contract.split(split) for file in day.files):
        contract = rewrite(Path(folder), contract, file.path, without_clicks, compression="zstd")
    return folder


def test_a_baseline_of_samples_of_one_label_is_one_error(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    samples = with_one_class(beside, "no clicks", "train")
    for baseline in ("logistic_regression", "popularity"):
        assert run("--compare", baseline, samples=samples) == 1
        error = one_error(capsys)
        assert (
            f"{baseline}, fitted on split 'train' of {samples}: a baseline learns from both labels, and all 2,036 rows" in error
        )
        assert "have 0; name a split that has both" in error


def test_a_split_of_one_label_has_the_metrics_that_there_are(run: Callable[..., int], beside: Finished) -> None:
    samples = with_one_class(beside, "no clicks in test", "test")
    assert run("--compare", "popularity", "--json", "table.json", samples=samples) == 0
    table = json.loads(Path("table.json").read_text())
    for name in ("model", "popularity"):
        assert table[name]["auc"] is None
        assert table[name]["logloss"] > 0


def test_a_contract_that_cannot_be_used_is_one_error(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    for document, expected in damaged_contracts(beside.contract).items():
        Path("damaged").mkdir(exist_ok=True)
        Path("damaged/contract.json").write_text(document)
        assert run(samples="damaged") == 1
        assert expected in one_error(capsys)


def test_what_is_not_there_is_one_error(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    Path("empty").mkdir()
    write_truth("half", split_rows(beside, "test").iloc[10:])
    first = split_rows(beside, "test")["impression_id"][0]
    cases: list[tuple[list[str], dict[str, object], list[str]]] = [
        (["--split", "tests"], {}, ["no split 'tests'", "test, train, validation"]),
        (["--compare", "popularity", "--train-split", "training"], {}, ["no split 'training'"]),
        (["--compare", "popularity", "--train-split", "test"], {}, ["fitted on split test, which they are scored on"]),
        ([], {"samples": "nowhere"}, ["nowhere/contract.json: no such file"]),
        ([], {"model": "nowhere"}, ["nowhere: no model"]),
        ([], {"model": beside.samples}, ["no model"]),
        ([], {"model": "models:/mian/7"}, ["mian", "7", "not found"]),
        ([], {"model": "models:/another/1"}, ["another", "not found"]),
        (["--truth", "nowhere"], {}, ["nowhere: no table of true probabilities"]),
        (["--truth", "empty"], {}, ["empty: no table of true probabilities"]),
        (["--truth", "half"], {}, ["half: 10 of 333 impressions have no true probability", first]),
        (["--predictions", "nowhere/predictions.parquet"], {}, ["nowhere"]),
        (["--json", "nowhere/table.json"], {}, ["nowhere"]),
    ]
    for more, changes, expected in cases:
        assert run(*more, **changes) == 1
        error = one_error(capsys)
        assert all(part in error for part in expected), error


def test_samples_that_are_cut_off_are_one_error(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    shutil.copytree(beside.samples, "cut")
    path = Path("cut") / beside.contract.split("test")[0].files[1].path
    path.write_bytes(path.read_bytes()[:-100])
    assert run(samples="cut") == 1
    assert str(path) in one_error(capsys)


def test_a_store_that_is_not_there_is_one_error(run: Callable[..., int], beside: Finished, capsys: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}", f"sqlite:///{beside.folder}"):  # a closed port; a folder where a file should be
        with seconds(60):
            assert run("--tracking-uri", uri) == 1
        one_error(capsys)
