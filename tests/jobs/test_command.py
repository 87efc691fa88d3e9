"""What every job does with its configuration."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import command
from jobs.command import LAUNCHERS, refuse_other_launchers
from jobs.configuration import ConfigError, load_config
from mian.config import TrainConfig
from mian.models import MODELS
from pipeline.config import DataConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_(text: str) -> str:
        (tmp_path / "file.yaml").write_text(text)
        return str(tmp_path / "file.yaml")

    return write_


def message(model: Any, path: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(model, path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_overrides_replace_values_of_the_file(write: Any) -> None:
    path = write("samples: data\nbatch_size: 64\noptimizer: {l2: 0.1, beta1: 0.8}\n")
    overrides = [
        "batch_size=32",
        "optimizer.l2=1e-3",
        "optimizer.clip_norm=null",
        "model.options.mlp=[4,2]",
        "tracking.run_name=a=b",
    ]
    config = load_config(TrainConfig, path, overrides)
    assert (config.samples, config.batch_size) == ("data", 32)
    assert (config.optimizer.l2, config.optimizer.beta1, config.optimizer.clip_norm) == (1e-3, 0.8, None)
    assert config.model.options == {"mlp": [4, 2]}
    assert config.tracking.run_name == "a=b"
    assert load_config(TrainConfig, path).batch_size == 64


@pytest.mark.parametrize("value", ["/a #b", "#b", "/a#b", "ü #1", "'/a #b'"])
def test_an_override_with_a_number_sign_arrives_whole(write: Any, value: str) -> None:
    path = write("samples: data\n")
    assert load_config(TrainConfig, path, [f"samples={value}"]).samples == value.strip("'")


def test_an_override_with_a_comment_behind_a_list_is_refused(write: Any) -> None:
    said = message(TrainConfig, write("samples: data\n"), "model.options.mlp=[4, 2] #b")
    assert "override 'model.options.mlp=[4, 2] #b'" in said
    assert "'#b' for a comment" in said


def test_values_may_refer_to_others_and_to_the_environment(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "s3://bucket")
    config = load_config(TrainConfig, write("samples: ${oc.env:DATA}/samples\noutput: ${samples}/models\n"))
    assert config.output == "s3://bucket/samples/models"
    monkeypatch.delenv("DATA")
    assert "DATA" in message(TrainConfig, write("samples: ${oc.env:DATA}/samples\n"))


def test_the_demo_and_the_world_of_the_results_differ_in_size_and_place_alone() -> None:
    demo, simulated = (yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text()) for name in ("demo", "simulated"))
    assert demo["simulate"].pop("impressions") < simulated["simulate"].pop("impressions")
    for key in ("name", "logs", "samples"):
        assert demo.pop(key) != simulated.pop(key)
    assert demo == simulated


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_training_configurations_that_come_along_are_good(path: Path) -> None:
    config = load_config(TrainConfig, str(path))
    MODELS[config.model.name].config(**config.model.options)


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_data_configurations_that_come_along_are_good(path: Path) -> None:
    assert "train" in load_config(DataConfig, str(path)).splits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("samples: a\nbatchsize: 3\n", ["unknown key 'batchsize'", "did you mean 'batch_size'?"]),
        ("samples: a\noptimizer: {learningrate: 1}\n", ["'optimizer.learningrate'", "did you mean 'learning_rate'?"]),
        ("samples: a\nmodel: {nam: mian}\n", ["'model.nam'", "did you mean 'name'?"]),
        ("batch_size: 3\n", ["samples", "required"]),
        ("samples: a\nbatch_size: many\n", ["batch_size", "integer"]),
        ("samples: a\nbatch_size: 0\n", ["batch_size", "greater than or equal to 1"]),
        ("samples: a\nstream: {order: random}\n", ["stream.order", "'sharded' or 'global'"]),
        ("samples: a\noptimizer: 3\n", ["optimizer"]),
        ("samples: a\nepochs: 0\nbatchsize: 3\n", ["epochs", "'batchsize'"]),
        ("samples: [a\n", ["file.yaml"]),
        ("- samples\n", ["file.yaml"]),
        ("samples\n", ["file.yaml"]),
        ("", ["samples", "required"]),
        ("samples: ${nothing}\n", ["nothing"]),
    ],
)
def test_a_wrong_file_is_one_error_that_names_it_and_the_place(write: Any, text: str, expected: list[str]) -> None:
    path = write(text)
    said = message(TrainConfig, path)
    assert said.startswith(f"{path}: ")
    assert all(part in said for part in expected), said


def test_an_unknown_key_inside_a_list_or_a_mapping_of_names_has_its_nearest_named(tmp_path: Path) -> None:
    demo = str(ROOT / "conf" / "data" / "demo.yaml")
    field = message(DataConfig, demo, "fields.candidate.item_id.vocabulry=x")
    assert "'fields.candidate.item_id.vocabulry'" in field
    assert "did you mean 'vocabulary'?" in field
    table = message(DataConfig, demo, "lookups=[{path: a, keys: [b], colums: {c: d}}]")
    assert "colums'" in table
    assert "did you mean 'columns'?" in table
    assert "did you mean 'splits'?" in message(DataConfig, demo, "split.train.first=2020-01-01")


@pytest.mark.parametrize("override", ["batch_size", "--batch_size", ""])
def test_an_override_without_a_value_is_refused(write: Any, override: str) -> None:
    assert f"override {override!r} is not KEY=VALUE" in message(TrainConfig, write("samples: a\n"), override)


@pytest.mark.parametrize("override", ["batch_size=[1", "batch_size=${nothing}", "=3", "samples.first=3", "optimizer.=3"])
def test_an_override_that_cannot_be_is_one_error(write: Any, override: str) -> None:
    message(TrainConfig, write("samples: a\n"), override)


def test_files_that_cannot_be_read_are_one_error(tmp_path: Path) -> None:
    assert "no such configuration file" in message(TrainConfig, str(tmp_path / "none.yaml"))
    assert str(tmp_path) in message(TrainConfig, str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"samples: \xff\xfe\x00")
    assert "binary.yaml" in message(TrainConfig, str(tmp_path / "binary.yaml"))


def test_a_job_ends_with_0_or_with_1_and_its_error(capsys: Any) -> None:
    def fails() -> None:
        raise KeyError("this one")

    assert command.run(lambda: None, ()) == 0
    assert command.run(fails, (KeyError,)) == 1
    assert capsys.readouterr().err == "error: 'this one'\n"


def test_an_error_that_no_one_expected_keeps_its_traceback() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command.run(fails, (KeyError,))


@pytest.mark.parametrize(("size", "rank"), LAUNCHERS)
def test_processes_that_know_nothing_of_each_other_are_refused(size: str, rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in itertools.chain(*LAUNCHERS, ["HOROVOD_RANK"]):
        monkeypatch.delenv(name, raising=False)
    refuse_other_launchers(1)
    monkeypatch.setenv(size, "2")
    refuse_other_launchers(1)  # an allocation of two, in which one process was started
    monkeypatch.setenv(rank, "1")
    with pytest.raises(ConfigError, match=f"{size}=2 and {rank}=1: .* `horovodrun -np 2 python"):
        refuse_other_launchers(1)
    refuse_other_launchers(2)
    monkeypatch.setenv("HOROVOD_RANK", "0")
    refuse_other_launchers(1)


def test_ctrl_c_ends_a_job_with_one_line(capsys: Any) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert command.run(stopped, ()) == 130
    assert capsys.readouterr().err == "error: stopped by Ctrl-C\n"
