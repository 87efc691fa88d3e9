"""Settings that cannot work are refused where they are read, by name."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    _validate_experiment_name,
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)
from pydantic import ValidationError

from mian.config import TrackingConfig, TrainConfig

NAMES = [
    "mian", "team/mian", "a:b", "", " ", ".", "..", "..a", "a..", "ü b", "a%20b", "a\\b", "latest", "LATEST", "v1", "V12", "v", "v1b",
    "1", "best-of_3", "best model", "größte", "a.b", "a" * 255, "a" * 256,
]  # fmt: skip


def taken_by_mlflow(kind: str, name: str) -> bool:
    try:
        if kind == "alias":
            _validate_model_alias_name(name)
            _validate_model_alias_name_reserved(name)
        elif kind == "registered_name":
            _validate_model_name(name)
        else:
            _validate_experiment_name(name)
    except MlflowException:
        return False
    return True


@pytest.mark.parametrize("kind", ["alias", "registered_name"])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_refused_where_mlflow_refuses_them(kind: str, name: str) -> None:
    if taken_by_mlflow(kind, name):
        assert getattr(TrackingConfig.model_validate({kind: name}), kind) == name
    else:
        with pytest.raises(ValidationError, match=kind):
            TrackingConfig.model_validate({kind: name})


def test_an_experiment_has_a_name_that_the_store_can_hold() -> None:
    assert TrackingConfig(experiment="a" * 500).experiment == "a" * 500
    for name in ("", " ", "a" * 501):
        with pytest.raises(ValidationError, match="experiments of 1 to 500 characters"):
            TrackingConfig(experiment=name)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"validation_split": "test"}, "validation_split and test_split are both 'test'"),
        ({"validation_split": "train"}, "train_split and validation_split are both 'train'"),
        ({"test_split": "train"}, "train_split and test_split are both 'train'"),
    ],
)
def test_splits_are_apart(splits: dict[str, str], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        TrainConfig.model_validate({"samples": "a", **splits})
    assert TrainConfig(samples="a", validation_split="test", test_split=None).test_split is None


def test_the_old_name_of_sharded_tables_is_read_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = TrainConfig.model_validate({"samples": "s", "tables": {"placement": "split"}})
    assert config.tables.placement == "sharded"
    assert "tables.placement: split is now called sharded" in caplog.text


def test_settings_are_what_decides_the_weights() -> None:
    before = TrainConfig(samples="s").settings()
    neutral = {"samples": "t", "device": "cpu", "stream": {"workers": 9}, "tables": {"placement": "sharded"}, "log_every": 3}
    assert TrainConfig.model_validate({"samples": "s", **neutral}).settings() == before
    for deciding in ({"seed": 1}, {"stream": {"order": "global"}}, {"optimizer": {"l2": 0.1}}, {"precision": "bf16"}):
        assert TrainConfig.model_validate({"samples": "s", **deciding}).settings() != before
