"""The same training on a GPU, where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mian.checkpoint.store import CheckpointStore
from mian.distributed.collectives import Ranks
from mian.evaluation.scoring import scores
from mian.execution.prefetch import prefetch_to_device
from mian.kernels import JaggedLayout, attention, pool
from mian.kernels.load import fits_gpu
from mian.layers import GRU, reading_order
from mian.stream import SampleStream
from mian.training import Trainer, TrainingResult, TrainingStopped
from mian.training.data import held_out_stream
from tests.launcher import work_on
from tests.support.curves import Curves

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


def train(samples: Any, **values: Any) -> tuple[TrainingResult, list[float]]:
    curves = Curves()
    return trainer_of(samples, curves, **values).run(), losses(curves)


def samples_of(samples: Any) -> Any:
    return SampleStream(str(samples.folder), samples.contract, "train", 64, seed=1).epoch(0)


@pytest.mark.parametrize("tables", ["lazy_adam", "rowwise_adagrad"])
def test_steps_on_a_gpu_have_the_losses_of_those_on_the_cpu(samples: Any, tables: str) -> None:
    optimizer = {**SETTINGS["optimizer"], "tables": tables}
    (on_cpu, expected), (on_gpu, got) = (train(samples, device=device, optimizer=optimizer) for device in ("cpu", "cuda"))
    assert next(on_gpu.model.parameters()).is_cuda
    assert got == pytest.approx(expected, abs=1e-4)
    assert on_cpu.test is not None
    assert on_gpu.test is not None
    assert on_gpu.test.metrics == pytest.approx(on_cpu.test.metrics, abs=1e-3)
    split = held_out_stream(samples.config(), samples.contract, Ranks(), "test")
    rows = [
        [np.concatenate(column) for column in zip(*scores(trained.model, split), strict=True)] for trained in (on_cpu, on_gpu)
    ]
    (labels, probabilities, _), (labels_there, probabilities_there, _) = rows
    np.testing.assert_allclose(probabilities_there, probabilities, atol=1e-3)
    np.testing.assert_array_equal(labels_there, labels)


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


@pytest.mark.ranks
@pytest.mark.parametrize("tables", ["replicated", "sharded"])
def test_two_ranks_on_one_gpu_have_the_losses_of_one_rank_on_the_cpu(samples: Any, tmp_path: Path, tables: str) -> None:
    values: dict[str, Any] = {"stream": {"order": "global"}, "device": "cuda", "tables": {"placement": tables}}
    expected = train(samples, stream={"order": "global"}, device="cpu")[1]
    config = samples.config(EXACT, **{**SETTINGS, **values, "batch_size": 16}).model_dump()
    first, _ = work_on(tmp_path, 2, {"training": {"config": config}})["training"]
    assert list(first["curve"].values()) == pytest.approx(expected, abs=1e-4)


def test_batches_come_to_the_gpu_as_the_stream_has_them(samples: Any) -> None:
    model = trainer_of(samples, device="cuda").model

    with prefetch_to_device(model, samples_of(samples)) as batches:
        for batch, expected in zip(batches, samples_of(samples), strict=True):
            for name, column in expected.items():
                assert batch[name].is_cuda
                assert torch.equal(batch[name].cpu(), column), name
            torch.cuda._sleep(100_000)  # what comes next finds the GPU at work


def test_rounded_products_learn_there_too(samples: Any) -> None:
    longer: dict[str, Any] = {"max_steps": None, "epochs": 3, "optimizer": {"learning_rate": 3e-3}, "device": "cuda"}
    exact, rounded = (train(samples, precision=precision, **longer)[0] for precision in ("fp32", "bf16"))
    assert rounded.validation["logloss"] == pytest.approx(exact.validation["logloss"], rel=0.02)


@pytest.mark.parametrize("name", ["mian", "mian_plus", "din", "dien", "wide_deep"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_have_the_losses_of_those_that_are_not(samples: Any, name: str, precision: str) -> None:
    model = {"name": name, "options": {"dropout": 0.0}}
    found = []
    for graphs in (True, False):
        curves = Curves()
        trainer = trainer_of(samples, curves, device="cuda", cuda_graphs=graphs, precision=precision, model=model)
        trainer.run()
        found.append(losses(curves))
        recorded = trainer._train_step._graphs
        assert (recorded is not None) == graphs
        assert recorded is None or (recorded._works and recorded._graphs), "steps were recorded"
    assert found[0] == pytest.approx(found[1], abs=1e-4 if precision == "fp32" else 5e-3)


def test_dropout_is_drawn_anew_in_each_recorded_step(samples: Any) -> None:
    trainer = trainer_of(samples, device="cuda", options={"dropout": 0.5}, optimizer={"learning_rate": 1e-12})
    step, batch = trainer._train_step, next(samples_of(samples))
    with prefetch_to_device(trainer.model.train(), iter([batch] * 8), step.bucket_shapes) as batches:
        drawn = [float(step(given, 0.0)[0]) for given in batches]
    assert step._graphs is not None
    assert step._graphs._graphs
    assert len(set(drawn)) == 8


def test_a_recurrent_network_reads_histories_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    layout = JaggedLayout(torch.tensor([0, 1, 30, 32, 33, 7, 5, 0, *[3] * 12]), 33)
    layer, results = GRU(10, 20), []
    torch.nn.init.normal_(layer.recurrent, std=0.3)
    operands, grads = (torch.randn(layout.real, 10), torch.rand(layout.real)), torch.randn(layout.real, 20)
    for device in ("cpu", "cuda"):
        there = layout.map(lambda tensor, device=device: tensor.to(device))
        vectors, weights = (tensor.to(device).requires_grad_() for tensor in operands)
        layer.to(device).zero_grad()
        order = reading_order(there, vectors, 20)
        states = order.restore(layer(order.arrange(vectors), order, order.arrange(weights)))
        states.backward(grads.to(device))
        found = [states.detach(), vectors.grad, weights.grad, *(parameter.grad for parameter in layer.parameters())]
        results.append([tensor.cpu() for tensor in found])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_of_histories_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layout = JaggedLayout(torch.tensor([0, 1, 30, 32, 33, 70, 5, 0]), 70)
    results = []
    operands = [torch.randn(layout.real, 3 * 5 * 12), torch.randn(layout.real), torch.randn(layout.real, 100)]
    grads = [torch.randn(layout.real, 5 * 12), torch.randn(8, 100)]
    for device in ("cpu", "cuda"):
        there = layout.map(lambda tensor, device=device: tensor.to(device))
        given = [tensor.to(device, dtype).requires_grad_() for tensor in operands]
        outputs = [attention(given[0], there, 5), *pool(given[1], given[2], there)]
        torch.autograd.backward(outputs[:2], [grad.to(device, dtype) for grad in grads])
        results.append([tensor.float().cpu() for tensor in (*outputs, *(tensor.grad for tensor in given))])
    assert fits_gpu(torch.zeros(1, device="cuda")), "the operators in question"
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(
            other, one, rtol=1e-4 if dtype == torch.float32 else 2e-2, atol=1e-5 if dtype == torch.float32 else 2e-2
        )


@pytest.mark.long
def test_compiled_steps_have_the_same_losses_there(samples: Any) -> None:
    expected, got = (train(samples, device="cuda", compile=compiled)[1] for compiled in (False, True))
    assert got == pytest.approx(expected, abs=1e-4)
