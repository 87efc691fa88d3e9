"""Which trainings a configuration asks for."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from jobs.configuration import load_config
from mian.experiments import ExperimentConfig
from mian.models import MODELS
from tests.mian.experiments.conftest import VALUES

ROOT = Path(__file__).resolve().parents[3]
RATE, DROPOUT = "optimizer.learning_rate", "model.options.dropout"


def test_every_combination_is_a_point(make_config: Any) -> None:
    expected = [((RATE, rate), (DROPOUT, dropout)) for rate in (1e-3, 1e-2) for dropout in (0.0, 0.5)]
    assert make_config().points("MIAN") == expected


def test_the_grid_may_be_a_list_of_points(make_config: Any) -> None:
    points = [{RATE: 1e-3, DROPOUT: 0.5}, {RATE: 1e-2, DROPOUT: 0.0}, {RATE: 1e-2, DROPOUT: 0.5}]
    config = make_config(grid=points)
    assert config.points("MIAN") == [tuple(point.items()) for point in points]
    assert config.points("LR") == [((RATE, 1e-3),), ((RATE, 1e-2),)]
    assert config.grid_keys == [RATE, DROPOUT]


def test_what_a_model_lacks_and_what_a_line_sets_is_no_part_of_its_points(make_config: Any) -> None:
    config = make_config()
    assert config.points("LR") == [((RATE, 1e-3),), ((RATE, 1e-2),)]
    assert config.points("DIN") == [((DROPOUT, 0.0),), ((DROPOUT, 0.5),)]
    assert config.points("MIAN-plus") == [((RATE, 1e-3),), ((RATE, 1e-2),)]


def test_a_point_goes_before_the_experiments_settings_and_a_line_before_both(make_config: Any) -> None:
    config = make_config(
        training={"batch_size": 8, "optimizer": {"learning_rate": 0.5, "l2": 0.1}, "model": {"options": {"mlp": [3]}}}
    )
    trial = config.trial("MIAN", ((RATE, 1e-2), (DROPOUT, 0.5)), 7)
    assert (trial.optimizer.learning_rate, trial.optimizer.l2, trial.batch_size, trial.seed) == (1e-2, 0.1, 8, 7)
    assert trial.model.options["dropout"] == 0.5
    assert trial.model.options["mlp"] == VALUES["models"]["MIAN"]["options"]["mlp"]
    assert config.trial("DIN", (), 7).optimizer.learning_rate == 5e-3
    assert config.trial("DIN", (), 7).model.options["mlp"] == [3]
    assert "mlp" not in config.trial("LR", (), 7).model.options


def test_a_training_does_not_read_the_test_split_and_says_in_its_runs_name_what_it_is(make_config: Any) -> None:
    trial = make_config().trial("MIAN", ((RATE, 1e-2), (DROPOUT, 0.5)), 7)
    assert trial.test_split is None
    assert trial.tracking.run_name == "MIAN learning_rate=0.01 dropout=0.5 seed=7"
    assert trial.tracking.registered_name is None


def test_the_papers_models_and_ablations_are_the_defaults(tmp_path: Any) -> None:
    config = ExperimentConfig(name="x", title="x", samples="s", output=str(tmp_path))
    assert list(config.compared) == [
        *("LR", "FM", "Wide&Deep", "Deep&Cross", "DCN-v2", "DeepFM", "xDeepFM", "DIN", "DIEN", "MIAN"),
    ]
    assert list(config.ablations)[:5] == ["w/o IUIM", "w/o ICIM", "w/o IBIM", "w/o GIM", "w/o IUIM&ICIM"]
    assert config.trial("no Transformer", (), 1).model.options["transformer"] == "none"


def test_a_further_line_may_take_the_place_of_one_of_the_papers(tmp_path: Any) -> None:
    extra_models = {"DIN": {"name": "din", "options": {"unit": [80]}}, "mine": {"name": "lr"}}
    config = ExperimentConfig(name="x", title="x", samples="s", output=str(tmp_path), extra_models=extra_models)
    assert list(config.compared)[-4:] == ["DIN", "DIEN", "MIAN", "mine"]
    assert config.trial("DIN", (), 1).model.options["unit"] == [80]


def test_a_model_with_another_default_is_another_training(make_experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def folders() -> dict[str, Path]:
        return {variant: make_experiment().trial(variant, (), 1).folder for variant in ("LR", "DIN")}

    before = folders()
    monkeypatch.setattr(MODELS["din"].config.model_fields["softmax"], "default", True)
    MODELS["din"].config.model_rebuild(force=True)
    after = folders()
    monkeypatch.undo()
    MODELS["din"].config.model_rebuild(force=True)
    assert before["LR"] == after["LR"]
    assert before["DIN"] != after["DIN"]


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_that_comes_along_is_one_and_names_the_samples_of_its_data_set(path: Path) -> None:
    config = load_config(ExperimentConfig, str(path))
    data = OmegaConf.load(ROOT / "conf" / "data" / path.name)
    assert (config.name, config.samples) == (data.name, data.samples)
    if config.published is not None:
        assert config.published.auc.keys() == config.published.logloss.keys() <= config.compared.keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"treatment": "MIEN"}, "treatment: there is no variant 'MIEN'"),
        ({"latency_baseline": "DINN"}, "latency_baseline: there is no variant 'DINN'"),
        ({"treatment": "DIN"}, "treatment: 'DIN' is din"),
        ({"ablations": {"DIN": {"name": "mian"}}}, "'DIN' is also among models"),
        ({"ablations": {"other": {"name": "mean"}}}, "other: there is no model 'mean'"),
        ({"proposed": ["LR", "DIN", "MIAN", "MIAN-plus"]}, "nothing to compare with"),
        ({"training": {"batch": 3}}, "batch"),
        ({"grid": {"optimizer.rate": [1.0]}}, "rate"),
        ({"grid": {RATE: [-1.0]}}, "greater than 0"),
        ({"grid": {"model.options.droput": [0.5]}}, "grid: model.options.droput: no variant's model has"),
        ({"training": {"model": {"options": {"mpl": [3]}}}}, "training.model.options.mpl: no variant's model has"),
        ({"training": {"model": "mian"}}, "training: model may hold options and nothing else, it is 'mian'"),
        ({"training": {"model": {"name": "mian"}}}, "training: model may hold options and nothing else"),
        ({"training": {"model": {"options": [3]}}}, "training: model may hold options and nothing else"),
        ({"ablations": {"other": {"name": "mian", "training": {"model": 3}}}}, "other: model may hold options and nothing else"),
        ({"grid": {"model.name": ["din"]}}, "model may hold options and nothing else"),
        ({"ablations": {"other": {"name": "mian", "options": {"mpl": [3]}}}}, "did you mean 'mlp'"),
        ({"seeds": []}, "seeds"),
        ({"model": {}}, "model"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_the_first_training(make_config: Any, changes: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make_config(**changes)
    assert said in str(caught.value)
