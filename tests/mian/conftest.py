import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mian.checkpoint.store import CheckpointStore
from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import Ranks
from mian.training import Trainer, open_streams
from tests.factories import SMALL_MODEL, write_samples
from tests.support.curves import Curves
from tests.support.launches import Launches


@dataclass(frozen=True)
class Samples:
    folder: Path
    contract: Contract

    def config(self, options: dict[str, Any] | None = None, **values: Any) -> TrainConfig:
        """A training on these samples; ``options`` are the model's."""
        model = {"options": {**SMALL_MODEL, **(options or {})}}
        settings = {"samples": str(self.folder), "model": model, "batch_size": 32, "threads": 1, "device": "cpu"}
        return TrainConfig.model_validate({**settings, **values})

    def trainer(
        self,
        store: CheckpointStore | None = None,
        stop_at: int | None = None,
        curves: Curves | None = None,
        stopping: Callable[[Trainer], bool] | None = None,
        **values: Any,
    ) -> Trainer:
        """A trainer, resumed from the store's newest checkpoint; ``values`` as for :meth:`config`.

        It is asked to stop in the step ``stop_at``, or when ``stopping`` says so.
        """
        ranks, config = Ranks(), self.config(**values)
        stopping = stopping or (lambda trainer: trainer.progress.step + 1 == stop_at)
        trainer = Trainer(
            config,
            self.contract,
            open_streams(config, self.contract, ranks),
            ranks,
            curves or Curves(),
            store,
            lambda: stopping(trainer),
        )
        trainer.resume(store.newest() if store is not None else None)
        return trainer


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


@pytest.fixture(scope="session")
def launches(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Launches:
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "launches"
    folder.mkdir(exist_ok=True)
    return Launches(samples, folder)


@pytest.fixture
def float64() -> Iterator[None]:
    """Tensors and weights are of float64 unless a test says otherwise: its rounding lies nine digits below the usual tolerances."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
