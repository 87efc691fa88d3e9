from pathlib import Path
from typing import Any

import pytest
import torch

from mian.checkpoint.store import CheckpointStore
from mian.models import ClickModel
from mian.serving import load_servable
from mian.training import Trainer, TrainingResult, TrainingStopped
from tests.factories import whole_split, write_servable
from tests.support.arithmetic import assert_metrics_of

SETTINGS: dict[str, Any] = {"epochs": 3, "optimizer": {"learning_rate": 3e-3}, "options": {"dropout": 0.1}}


def trainer_of(samples: Any, store: CheckpointStore | None = None, stop_at: int | None = None, **values: Any) -> Trainer:
    trainer: Trainer = samples.trainer(store, stop_at, **{**SETTINGS, **values})
    return trainer


@pytest.fixture(scope="module")
def rounded(samples: Any) -> TrainingResult:
    return trainer_of(samples, precision="bf16").run()


def weights(model: ClickModel) -> dict[str, torch.Tensor]:
    return model.state_dict()


def test_it_learns_as_much_from_rounded_products(samples: Any, rounded: TrainingResult) -> None:
    exact = trainer_of(samples).run()
    assert rounded.validation["auc"] > 0.7
    assert rounded.validation["logloss"] == pytest.approx(exact.validation["logloss"], rel=0.02)
    differing = [name for name, weight in weights(exact.model).items() if not torch.equal(weight, weights(rounded.model)[name])]
    assert differing, "products are rounded"


def test_weights_and_what_the_optimizer_remembers_stay_float32(samples: Any) -> None:
    trainer = trainer_of(samples, precision="bf16", max_steps=3)
    trainer.run()
    state = trainer.state()
    floats = [tensor for kind in ("model", "optimizer") for tensor in state[kind].values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float32}


def test_stopped_it_goes_on_as_if_it_had_not_been(samples: Any, rounded: TrainingResult, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    with pytest.raises(TrainingStopped):
        trainer_of(samples, store, stop_at=37, precision="bf16").run()
    resumed = trainer_of(samples, store, precision="bf16").run()
    assert resumed.steps == rounded.steps
    for name, weight in weights(resumed.model).items():
        assert torch.equal(weight, weights(rounded.model)[name]), name


def test_the_served_model_gives_the_scores_of_the_evaluation_in_float32(
    samples: Any, rounded: TrainingResult, tmp_path: Path
) -> None:
    options = samples.config(**SETTINGS).model.options
    served = load_servable(write_servable(tmp_path / "model", rounded.model, samples.contract, samples.folder, options=options))
    assert {weight.dtype for weight in served.model.state_dict().values()} == {torch.float32}
    assert rounded.test is not None
    assert_metrics_of(rounded.test.metrics, served.model, whole_split(samples.folder, samples.contract, "test"))
