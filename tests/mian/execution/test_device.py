"""What a GPU is given, as far as it can be seen without one, and the choice of it."""

import platform
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mian.checkpoint.keys import training_key
from mian.config import OptimizerConfig
from mian.distributed.collectives import Ranks
from mian.execution.device import DeviceError, choose_device, warn_of_slow_products
from mian.execution.device_batch import to_device
from mian.execution.prefetch import AHEAD, Batch, on_device, prefetch, prefetch_to_device, prepared
from mian.layers import BatchNormalization
from mian.models import ClickModel, build
from mian.optim.optimizer import Optimizer
from mian.stream import SampleStream
from tests.factories import SMALL_MODEL

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
ELSEWHERE = torch.device("meta")
"""A device whose tensors have shapes and no values: whoever asks for a value, or mixes it with the CPU's, gets an error."""


class OneDevice(TorchDispatchMode):
    """Finds the operator that is given tensors of two devices; those of ``meta`` do not look after that themselves."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        assert len(devices) <= 1 or func is torch.ops.aten.copy_.default, f"{func} is given tensors of {devices}"
        return func(*args, **(kwargs or {}))


def small_model(samples: Any) -> ClickModel:
    torch.manual_seed(3)
    return build("mian", samples.contract, {**SMALL_MODEL, "dropout": 0.2})


def batches(samples: Any, count: int = 4) -> list[Batch]:
    stream = SampleStream(str(samples.folder), samples.contract, "train", 64, seed=1)
    return [batch for batch, _ in zip(stream.epoch(0), range(count), strict=False)]


@without_gpu
def test_where_there_is_no_gpu_the_cpu_is_taken_unless_a_gpu_is_asked_for(samples: Any) -> None:
    assert choose_device(samples.config(), 0).type == "cpu"
    assert choose_device(samples.config(device="cpu", precision="bf16"), 3).type == "cpu"
    with pytest.raises(DeviceError, match="device: cuda needs a GPU that torch can use"):
        choose_device(samples.config(device="cuda"), 0)


@pytest.mark.parametrize(
    ("precision", "capability", "machine", "is_slow"),
    [
        ("bf16", "AVX2", "x86_64", True),
        ("bf16", "AVX512", "x86_64", False),
        ("bf16", "DEFAULT", "aarch64", False),
        ("fp32", "AVX2", "x86_64", False),
    ],
)
def test_bfloat16_where_a_processor_has_no_instructions_for_it_is_warned_of(
    precision: str, capability: str, machine: str, is_slow: bool, samples: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    warn_of_slow_products(samples.config(precision=precision), torch.device("cpu"))
    assert ("train with precision=fp32" in caplog.text) == is_slow


def test_a_checkpoint_is_of_a_precision_and_of_no_device(samples: Any) -> None:
    def key(**values: Any) -> str:
        return training_key(samples.config(**values), samples.contract)

    assert key(device="cuda") == key(device="cpu", compile=True) == key()
    assert key(precision="bf16") != key()


def test_on_the_cpu_batches_are_those_of_the_stream(samples: Any) -> None:
    model, given = small_model(samples), batches(samples)
    assert on_device(model, given[0]) is given[0]
    with prefetch_to_device(model, iter(given)) as received:
        assert all(one is other for one, other in zip(received, given, strict=True))


def test_forward_and_backward_wait_for_no_value_of_the_device_and_mix_no_devices(samples: Any) -> None:
    model, batch = small_model(samples), batches(samples)[0]
    model.train()
    model.to(ELSEWHERE)
    there = on_device(model, batch)
    assert {column.device for column in there.values()} == {ELSEWHERE}
    for rounds in (False, True):
        with OneDevice():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounds):
                logits = model(there)
            nn.functional.binary_cross_entropy_with_logits(logits.float(), there["label"].float()).backward()
        assert {parameter.grad.device for parameter in model.parameters() if parameter.grad is not None} == {ELSEWHERE}
    assert all(parameter.grad is not None for parameter in model.parameters())

    with pytest.raises(NotImplementedError):  # without the lookup that the batch brings, the device is asked how many there are
        model(dict(there))


def test_a_batch_that_brings_its_lookup_gives_what_it_gives_without(samples: Any) -> None:
    model, batch = small_model(samples).eval(), batches(samples)[0]
    with_lookup = prepared(model, batch)
    one, other = (results(model, given) for given in (batch, to_device(with_lookup, torch.device("cpu"))))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    with torch.inference_mode():
        assert torch.equal(model(with_lookup), model(batch))


def results(model: ClickModel, batch: Batch) -> dict[str, torch.Tensor]:
    """Logits, gradients, and the statistics of the batch."""
    model.zero_grad()
    logits = model(batch)
    logits.square().sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    statistics = {
        name: module.batch_statistics.clone() for name, module in model.named_modules() if isinstance(module, BatchNormalization)
    }
    return {"logits": logits.detach(), **statistics} | {
        name: grad.to_dense() if grad.is_sparse else grad.clone() for name, grad in grads.items()
    }


@pytest.mark.parametrize("name", ["mian", "mian_plus", "din", "wide_deep", "xdeepfm"])
def test_rounded_up_a_batch_gives_what_it_gives_as_it_is(samples: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "self_attention",
        "dropout",
        "jagged",
        "attention_pooling",
        "embedding_rows",
    ):  # as on a GPU: the compiled operators are the CPU's
        for fits in ("fits", "fits_as_float32", "fits_devices", "fits_histories"):
            monkeypatch.setattr(sys.modules[f"mian.kernels.{module}"], fits, lambda *_: False, raising=False)
    torch.manual_seed(3)
    model = build(name, samples.contract, {}).double().train(name == "din")  # whose statistics are of a batch then
    assert model.supports_cuda_graphs
    shapes = set()
    for batch in batches(samples, 12):
        batch["behavior_length"][3] = 0
        for column in ("behavior_item_id", "behavior_category"):  # what stands where no behavior is changes nothing
            batch[column][3] = 5
        rounded = to_device(prepared(model, batch, bucket_shapes=True), torch.device("cpu"))
        shapes.add(rounded.memory_layout)
        expected, got = results(model, batch), results(model, rounded)
        assert expected.keys() == got.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(got[key], tensor, rtol=0, atol=1e-10, msg=lambda said, key=key: f"{key}: {said}")
    assert len(shapes) < 9, "the shapes of twelve batches should not be twelve"


def test_an_id_outside_of_its_vocabulary_is_found_before_it_is_on_the_device(samples: Any) -> None:
    model, batch = small_model(samples).to(ELSEWHERE), dict(batches(samples)[0])
    batch["candidate_item_id"] = batch["candidate_item_id"] + 1_000_000
    with pytest.raises(IndexError, match="column 'candidate_item_id' holds id"):
        on_device(model, batch)


@pytest.mark.parametrize("tables", ["lazy_adam", "rowwise_adagrad"])
def test_updates_of_tables_wait_for_no_value_of_the_device(samples: Any, tables: str) -> None:
    model, batch = small_model(samples), batches(samples)[0]
    model.to(ELSEWHERE)
    there = on_device(model, batch)
    optimizer = Optimizer(model, OptimizerConfig(tables=tables, l2=1e-3, l2_embedding=1e-3), Ranks())
    model(there).sum().backward()
    ((name, table),) = model.tables().items()
    gradient = table.weight.grad
    assert gradient is not None
    with OneDevice(), torch.no_grad():
        optimizer._step_table(name, gradient._indices()[0], gradient._values(), 1e-3)
    table_state = [tensor for key, tensor in optimizer.state().items() if key.startswith(f"optimizer.{name}") and tensor.dim()]
    assert {tensor.device for tensor in [*table_state, table.weight]} == {ELSEWHERE}


def test_batches_read_ahead_come_in_their_order_and_no_more_are_read_than_that() -> None:
    read: list[int] = []
    enough = threading.Event()

    def numbered() -> Iterator[Batch]:
        for number in range(100):
            read.append(number)
            if number == AHEAD + 1:
                enough.set()
            yield {"number": torch.tensor(number)}

    with prefetch(numbered(), lambda batch: int(batch["number"])) as received:
        assert [next(received) for _ in range(2)] == [0, 1]
        assert enough.wait(30)
    assert read == list(range(2 + AHEAD)), "after the block nobody reads"
    with prefetch(numbered(), lambda batch: int(batch["number"])) as received:
        assert list(received) == list(range(100))


def test_what_reading_raises_is_raised_where_the_batch_is_asked_for() -> None:
    def broken() -> Iterator[Batch]:
        yield {"number": torch.tensor(7)}
        raise OSError("the disk is gone")

    with prefetch(broken(), lambda batch: int(batch["number"])) as received:
        assert next(received) == 7
        with pytest.raises(OSError, match="the disk is gone"):
            next(received)
