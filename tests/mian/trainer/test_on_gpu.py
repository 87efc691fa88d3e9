"""The same training on a GPU, where there is one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mian.stream import SampleStream
from mian.trainer import CheckpointStore, Trained, Trainer, TrainingStopped
from mian.trainer.feed import fed
from tests.launcher import on_ranks
from tests.mian.trainer import rank_work
from tests.mian.trainer.curves import Curves

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")

SETTINGS: dict[str, Any] = {"max_steps": 40, "log_every": 1, "optimizer": {"learning_rate": 1e-3, "l2": 1e-4, "clip_norm": 1.0}}
EXACT = {"dropout": 0.0}


def trainer_of(
    samples: Any,
    curves: Curves | None = None,
    store: CheckpointStore | None = None,
    stop_at: int | None = None,
    **values: Any,
) -> Trainer:
    trainer: Trainer = samples.trainer(store, stop_at, curves, **{"options": EXACT, **SETTINGS, **values})
    return trainer


def losses(curves: Curves) -> list[float]:
    return list(curves["train_logloss"].values())


def train(samples: Any, **values: Any) -> tuple[Trained, list[float]]:
    curves = Curves()
    return trainer_of(samples, curves, **values).run(), losses(curves)


@pytest.mark.parametrize("tables", ["lazy_adam", "rowwise_adagrad"])
def test_steps_on_a_gpu_have_the_losses_of_those_on_the_cpu(samples: Any, tables: str) -> None:
    optimizer = {**SETTINGS["optimizer"], "tables": tables}
    (on_cpu, expected), (on_gpu, got) = (train(samples, device=device, optimizer=optimizer) for device in ("cpu", "cuda"))
    assert next(on_gpu.model.parameters()).is_cuda
    assert got == pytest.approx(expected, abs=1e-4)
    assert on_cpu.test is not None
    assert on_gpu.test is not None
    np.testing.assert_allclose(on_gpu.test.probabilities, on_cpu.test.probabilities, atol=1e-3)
    np.testing.assert_array_equal(on_gpu.test.labels, on_cpu.test.labels)


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_checkpoint_goes_on_on_another_device(samples: Any, tmp_path: Path, first: str, then: str) -> None:
    expected = train(samples, device="cpu")[1]
    store, curves = CheckpointStore(tmp_path, 2), Curves()
    with pytest.raises(TrainingStopped):
        trainer_of(samples, curves, store, stop_at=17, device=first).run()
    saved = store.newest()
    assert saved is not None
    assert {tensor.device.type for tensor in [*saved["model"].values(), *saved["optimizer"].values()]} == {"cpu"}
    trainer_of(samples, curves, store, device=then).run()
    assert losses(curves) == pytest.approx(expected, abs=1e-4)


@pytest.mark.horovod
@pytest.mark.parametrize("tables", ["replicated", "split"])
def test_two_ranks_on_one_gpu_have_the_losses_of_one_rank_on_the_cpu(samples: Any, tmp_path: Path, tables: str) -> None:
    values: dict[str, Any] = {"stream": {"order": "global"}, "device": "cuda", "tables": {"placement": tables}}
    expected = train(samples, stream={"order": "global"}, device="cpu")[1]
    config = samples.config(EXACT, **{**SETTINGS, **values, "batch_size": 16}).model_dump()
    (tmp_path / "work.json").write_text(json.dumps({"config": config}))
    launched = on_ranks(2, Path(rank_work.__file__), tmp_path, folder=tmp_path)
    assert launched.code == 0, launched.output
    left = torch.load(tmp_path / "rank-0-of-2.pt", map_location="cpu")
    assert list(left["curve"].values()) == pytest.approx(expected, abs=1e-4)


def test_batches_come_to_the_gpu_as_the_stream_has_them(samples: Any) -> None:
    model = trainer_of(samples, device="cuda").model

    def epoch() -> Any:
        return SampleStream(str(samples.folder), samples.contract, "train", 64, seed=1).epoch(0)

    with fed(model, epoch()) as batches:
        for batch, expected in zip(batches, epoch(), strict=True):
            for name, column in expected.items():
                assert batch[name].is_cuda
                assert torch.equal(batch[name].cpu(), column), name
            torch.cuda._sleep(100_000)  # what comes next finds the GPU at work


def test_rounded_products_learn_there_too(samples: Any) -> None:
    longer: dict[str, Any] = {"max_steps": None, "epochs": 3, "optimizer": {"learning_rate": 3e-3}, "device": "cuda"}
    exact, rounded = (train(samples, precision=precision, **longer)[0] for precision in ("fp32", "bf16"))
    assert rounded.validation["logloss"] == pytest.approx(exact.validation["logloss"], rel=0.02)


@pytest.mark.long
def test_compiled_steps_have_the_same_losses_there(samples: Any) -> None:
    expected, got = (train(samples, device="cuda", compile=compiled)[1] for compiled in (False, True))
    assert got == pytest.approx(expected, abs=1e-4)
