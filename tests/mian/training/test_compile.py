"""A step by torch.compile is the step without it; with a C++ compiler at hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from mian.checkpoint.store import CheckpointStore
from mian.config import OptimizerConfig
from mian.distributed.collectives import Ranks
from mian.execution.device import DeviceError
from mian.models import ClickModel, build
from mian.optim.optimizer import Optimizer
from mian.stream import SampleStream
from mian.training import Trainer, TrainingStopped
from mian.training.step import TrainingStep
from tests.factories import SMALL_MODEL

SIZES = (32, 32, 40, 48, 32)  # of batches, one after the other


def small_model(samples: Any, dropout: float = 0.0) -> ClickModel:
    torch.manual_seed(3)
    return build("mian", samples.contract, {**SMALL_MODEL, "dropout": dropout})


def batches(samples: Any) -> list[dict[str, torch.Tensor]]:
    """Of these sizes, each with its own number of behaviors."""
    stream = SampleStream(str(samples.folder), samples.contract, "train", max(SIZES), seed=1)
    drawn = zip(stream.epoch(0), SIZES, strict=False)
    return [{name: column[:size] for name, column in batch.items()} for batch, size in drawn]


def losses(samples: Any, model: ClickModel, **options: Any) -> list[float]:
    step = TrainingStep(model, Optimizer(model, OptimizerConfig(learning_rate=1e-2), Ranks()), **options)
    model.train()
    return [float(step(batch, 0.0)[0]) for batch in batches(samples)]


@pytest.fixture(autouse=True)
def nothing_compiled_yet() -> None:
    torch.compiler.reset()
    counters.clear()


@pytest.mark.long
def test_compiled_steps_have_the_losses_of_those_that_are_not(samples: Any) -> None:
    eager, compiled = small_model(samples), small_model(samples)
    expected = losses(samples, eager)
    assert len(set(expected)) == len(SIZES)
    assert losses(samples, compiled, compiled=True) == pytest.approx(expected, abs=1e-5)
    assert counters["stats"]["unique_graphs"] == 2, "the model's and its loss's, for all numbers of positions and of samples"
    assert list(compiled.state_dict()) == list(eager.state_dict())
    for name, weight in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], weight, atol=1e-3, rtol=1e-3, msg=name)

    compiled.eval()  # what is scored, and served, is not compiled
    with torch.no_grad():
        scored = compiled(batches(samples)[0])
    assert counters["stats"]["unique_graphs"] == 2
    assert scored.isfinite().all()


def test_without_a_compiler_it_is_said_before_the_first_step(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match="there is no no-such-compiler here; install one"):
        trainer_of(samples, None)


def trainer_of(samples: Any, store: CheckpointStore | None, stop_at: int | None = None) -> Trainer:
    settings = {"options": {"dropout": 0.3}, "compile": True, "max_steps": 12, "precision": "bf16"}
    trainer: Trainer = samples.trainer(store, stop_at, **settings)
    return trainer


@pytest.mark.long
def test_compiled_with_dropout_and_rounded_it_goes_on_as_if_it_had_not_been_stopped(samples: Any, tmp_path: Path) -> None:
    undisturbed = trainer_of(samples, None).run()
    store = CheckpointStore(tmp_path, 2)
    with pytest.raises(TrainingStopped):
        trainer_of(samples, store, stop_at=5).run()
    resumed = trainer_of(samples, store).run()
    for name, weight in undisturbed.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
