from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mian.contract import Contract
from mian.experiments import Experiment, ExperimentConfig
from tests.factories import SMALL_MODEL, write_samples

#: Two models, one more below, and an ablation that trains like its treatment at one point of the grid.
VALUES: dict[str, Any] = {
    "name": "small",
    "title": "A small experiment",
    "seeds": [1, 2],
    "training": {"batch_size": 32, "optimizer": {"schedule": "linear"}},
    "grid": {"optimizer.learning_rate": [1e-3, 1e-2], "model.options.dropout": [0.0, 0.5]},
    "models": {
        "LR": {"name": "lr"},
        "DIN": {"name": "din", "training": {"optimizer": {"learning_rate": 5e-3}}},
        "MIAN": {"name": "mian", "options": {name: value for name, value in SMALL_MODEL.items() if name != "dropout"}},
    },
    "extra_models": {"MIAN-plus": {"name": "mian", "options": dict(SMALL_MODEL)}},
    "ablations": {"w/o GIM": {"name": "mian", "options": {"without": ["gim"]}}},
}


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contract]:
    """A data set that tests leave as it is."""
    folder = tmp_path_factory.mktemp("samples")
    return folder, write_samples(folder)


@pytest.fixture
def make_config(samples: tuple[Path, Contract], tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """A configuration like the one above; some values replaced."""

    def make(**changes: Any) -> ExperimentConfig:
        return ExperimentConfig.model_validate(VALUES | {"samples": str(samples[0]), "output": str(tmp_path / "out")} | changes)

    return make


@pytest.fixture
def make_experiment(make_config: Callable[..., ExperimentConfig], samples: tuple[Path, Contract]) -> Callable[..., Experiment]:
    """The experiment of such a configuration."""

    def make(**changes: Any) -> Experiment:
        return Experiment(make_config(**changes), samples[1])

    return make
