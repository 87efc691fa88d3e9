from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mian.config import TrainConfig
from pipeline.contract import Contract
from tests.mian.sample_data import SMALL_MODEL, write_samples


@dataclass(frozen=True)
class Samples:
    folder: Path
    contract: Contract

    def config(self, options: dict[str, Any] | None = None, **values: Any) -> TrainConfig:
        """A training on these samples; ``options`` are the model's."""
        model = {"options": {**SMALL_MODEL, **(options or {})}}
        settings = {"samples": str(self.folder), "model": model, "batch_size": 32, "threads": 1, "device": "cpu"}
        return TrainConfig.model_validate({**settings, **values})


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Clicks that can be learned."""
    folder = tmp_path_factory.mktemp("samples")
    return Samples(folder, write_samples(folder))


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The same with labels shuffled: nothing to learn."""
    folder = tmp_path_factory.mktemp("noise")
    return Samples(folder, write_samples(folder, change_labels=lambda labels, rng: rng.permutation(labels)))
