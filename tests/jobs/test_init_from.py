"""A training that begins with a model that another one kept or registered."""

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

from jobs import train
from tests.jobs.conftest import Finished, extended, one_error


@pytest.fixture
def beside(beside: Finished) -> Finished:
    """In a store of its own, which has the registered model too."""
    shutil.copy(beside.folder / "mlflow.db", "mlflow.db")
    return beside


def start(place: Finished, model: str, *overrides: str) -> int:
    config = ["--config", str(place.config), "output=others", "tracking.experiment=warm", "max_steps=30"]
    return train.main([*config, f"init_from={model}", *overrides])


@pytest.mark.parametrize("source", ["models:/mian@newest", "folder"])
def test_the_first_evaluation_is_that_of_the_model_though_vocabularies_were_extended(beside: Finished, source: str) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    before = client.get_run(client.get_model_version_by_alias("mian", "newest").run_id)
    folder = extended(beside, "extended", 1)
    assert start(beside, str(beside.models[0]) if source == "folder" else source, f"samples={folder}") == 0
    (run,) = client.search_runs([client.get_experiment_by_name("warm").experiment_id])
    for metric in ("validation_logloss", "validation_auc", "validation_gauc"):
        history = client.get_metric_history(before.info.run_id, metric)
        best = next(point.value for point in history if point.step == before.data.metrics["best_step"])
        first = next(point.value for point in client.get_metric_history(run.info.run_id, metric) if point.step == 0)
        assert first == pytest.approx(best, abs=1e-6)


def test_what_cannot_be_begun_with_is_one_error(beside: Finished, capsys: Any, tmp_path: Path) -> None:
    for model, overrides, message in (
        (str(beside.models[0]), [f"samples={extended(beside, 'moved', 1, 'in front')}"], "vocabulary item has other contents"),
        (
            str(beside.models[0]),
            ["model.options.embedding_dim=4"],
            "it was trained with embedding_dim=8, and embedding_dim=4 is to be trained",
        ),
        (str(beside.models[0]), ["model.options.transformer=post_ln"], "take model.options.transformer=pre_ln"),
        ("models:/nobody/1", [], "init_from: models:/nobody/1 cannot be loaded"),
        (str(tmp_path), [], "no model that mian trained"),
        (str(beside.models[0]), ["init_moments=true"], "is no folder of checkpoints, and a model alone has no moments"),
    ):
        capsys.readouterr()
        assert start(beside, model, *overrides) == 1
        assert message in one_error(capsys)
