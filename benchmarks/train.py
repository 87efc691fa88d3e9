"""How fast are training steps, beside DeepCTR-Torch's?

    python -m pip install --no-build-isolation -c constraints.txt -e '.[benchmark]'
    python benchmarks/train.py
    python benchmarks/train.py --sizes electronics --batches 1024 --rounds 1
    python benchmarks/train.py --device cuda --precision bf16

Steps of training on batches that lie in memory, the same made-up samples for all: forward, loss, backward, optimizer. Ours, MIAN, DIN and
DIEN, are those of ``jobs/train.py`` with MIAN's settings, on as many of the ``--threads`` as that takes for the batch. DeepCTR-Torch's are
what its ``fit`` does with a batch, but for loading it, with its default settings, the same embeddings and layers, and all ``--threads``.
On a GPU ours are measured without recorded steps as well (``_unrecorded``).
All models take turns, ``--rounds`` times, and the medians are compared.

Two sizes, those of Amazon's reviews of electronics and of books; histories of 1 to 30 behaviors. ``vs_deepctr_din`` is ``samples_per_s``
over that of DeepCTR-Torch's DIN, ``vs_deepctr_dien`` over that of its DIEN (larger is better).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from stream import made_up_contract
from torch.nn.functional import binary_cross_entropy

from mian.config import OptimizerConfig, Precision
from mian.contract import Field
from mian.distributed.collectives import Ranks
from mian.execution.prefetch import on_device
from mian.execution.threads import default_threads, threads
from mian.models import build
from mian.optim.optimizer import Optimizer
from mian.training.step import TrainingStep

HISTORY = 30
EMBEDDING = 16
MLP = (32, 8)
#: Users, items and categories of the data sets.
SIZES = {"electronics": (192_403, 63_001, 801), "books": (603_668, 367_982, 1_600)}
USER_FIELDS = {f"u{number}": 20 for number in range(4)}
CONTEXT_FIELDS = {f"c{number}": 24 for number in range(4)}
SAMPLES = 65_536

Tensors = dict[str, torch.Tensor]
Step = Callable[[int], None]


def main() -> None:
    """Measure, and print one JSON line a case."""
    parser = argparse.ArgumentParser(description="How fast are training steps, beside DeepCTR-Torch's?")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of steps, for each model in each round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of all models; batches lie there")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile, beside ours without")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # DeepCTR-Torch asks for its newest version, and prints what comes of it
        for line in cases(arguments):
            print(json.dumps(line), file=lines, flush=True)


def cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for each size, batch size and model."""
    for size, batch_size in itertools.product(arguments.sizes, arguments.batches):
        torch.manual_seed(0)
        samples = made_up(*SIZES[size])
        ours = partial(
            our_step,
            size=SIZES[size],
            samples=samples,
            batch_size=batch_size,
            device=arguments.device,
            precision=arguments.precision,
        )
        names = ("mian", "din", "dien")
        steps = {
            **{name: ours(name) for name in names},
            **({f"{name}_unrecorded": ours(name, graphs=False) for name in names} if arguments.device == "cuda" else {}),
            **({"mian_compiled": ours("mian", compiled=True)} if arguments.compile else {}),
            "deepctr_din": deepctr_step("DIN", SIZES[size], samples, batch_size, arguments.device),
            "deepctr_dien": deepctr_step("DIEN", SIZES[size], samples, batch_size, arguments.device),
        }
        rates = measured(steps, batch_size, arguments.rounds, arguments.seconds)
        for model, rate in rates.items():
            yield {
                "benchmark": "train",
                "size": size,
                "batch": batch_size,
                "model": model,
                "samples_per_s": round(rate),
                "vs_deepctr_din": round(rate / rates["deepctr_din"], 2),
                "vs_deepctr_dien": round(rate / rates["deepctr_dien"], 2),
                "threads": arguments.threads,
                "device": arguments.device,
                "precision": arguments.precision,
            }


def measured(steps: Mapping[str, Step], batch_size: int, rounds: int, seconds: float) -> dict[str, float]:
    """The median samples a second of each model, all in turn; a round before them warms up."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    counters = {name: itertools.count() for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            done, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds:
                step(next(counters[name]))  # the last thing that each does is to wait for its GPU
                done += 1
            if turn:
                rates[name].append(done * batch_size / elapsed)
    return {name: statistics.median(rate) for name, rate in rates.items()}


def our_step(
    name: str,
    size: tuple[int, int, int],
    samples: Tensors,
    batch_size: int,
    device: str = "cpu",
    precision: Precision = "fp32",
    compiled: bool = False,
    graphs: bool = True,
) -> Step:
    """A step as ``jobs/train.py`` does it; a step without ``graphs`` gives a GPU one operator after the other."""
    model = build(name, made_up_contract(fields(), vocabulary_sizes(size)), {"mlp": MLP}).to(device)
    step = TrainingStep(model, Optimizer(model, OptimizerConfig(), Ranks()), precision, compiled, graphs=graphs)
    batches = [on_device(model, batch, bucket_shapes=step.bucket_shapes) for batch in cut(samples, batch_size)]

    def run(number: int) -> None:
        with threads(default_threads(batch_size, torch.get_num_threads())):
            step(batches[number % len(batches)], 0.0)
        synchronize(device)

    return run


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def deepctr_step(name: str, size: tuple[int, int, int], samples: Tensors, batch_size: int, device: str = "cpu") -> Step:
    """A step as DeepCTR-Torch's ``fit`` does it."""
    from deepctr_torch import models
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat

    users, items, categories = size
    features = [
        SparseFeat("user", users, EMBEDDING),
        SparseFeat("item", items, EMBEDDING),
        SparseFeat("category", categories, EMBEDDING),
        *(SparseFeat(field, values, EMBEDDING) for field, values in (USER_FIELDS | CONTEXT_FIELDS).items()),
        *(
            VarLenSparseFeat(
                SparseFeat(f"hist_{name}", values, EMBEDDING, embedding_name=name), HISTORY, length_name="seq_length"
            )
            for name, values in (("item", items), ("category", categories))
        ),
    ]
    model = getattr(models, name)(features, ["item", "category"], dnn_hidden_units=MLP, device=device)
    model.compile("adam", "binary_crossentropy", metrics=[])
    columns = {
        "user": samples["user_user"],
        "item": samples["candidate_item"],
        "category": samples["candidate_category"],
        **{field: samples[f"user_{field}"] for field in USER_FIELDS},
        **{field: samples[f"context_{field}"] for field in CONTEXT_FIELDS},
        "hist_item": samples["behavior_item"],
        "hist_category": samples["behavior_category"],
        "seq_length": samples["behavior_length"],
    }
    x = torch.cat([columns[name].reshape(SAMPLES, -1).float() for name in model.feature_index], dim=1)
    batches = list(cut({"x": x.to(device), "y": samples["label"].float().to(device)}, batch_size))
    model.train()

    def step(number: int) -> None:
        batch = batches[number % len(batches)]
        predicted = model(batch["x"]).squeeze()
        model.optim.zero_grad()
        loss = binary_cross_entropy(predicted, batch["y"], reduction="sum")
        (loss + model.get_regularization_loss() + model.aux_loss).backward()
        model.optim.step()
        synchronize(device)

    return step


def fields() -> list[Field]:
    """What both have: 2 fields of the candidate and of behaviors, 5 of the user, 4 of the context."""
    return [
        *(
            Field(group=group, name=name, vocabulary=name)
            for group in ("candidate", "behaviors")
            for name in ("item", "category")
        ),
        *(Field(group="user", name=name, vocabulary=name) for name in ("user", *USER_FIELDS)),
        *(Field(group="context", name=name, vocabulary=name) for name in CONTEXT_FIELDS),
    ]


def vocabulary_sizes(size: tuple[int, int, int]) -> dict[str, int]:
    """The rows of each table."""
    return dict(zip(("user", "item", "category"), size, strict=True)) | USER_FIELDS | CONTEXT_FIELDS


def made_up(users: int, items: int, categories: int) -> Tensors:
    """Samples with ids drawn evenly, histories of 1 to 30, padded with 0."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, HISTORY + 1, SAMPLES)
    real = np.arange(HISTORY) < lengths[:, None]
    columns = {
        "user_user": rng.integers(1, users, SAMPLES),
        "candidate_item": rng.integers(1, items, SAMPLES),
        "candidate_category": rng.integers(1, categories, SAMPLES),
        "behavior_item": rng.integers(1, items, (SAMPLES, HISTORY)) * real,
        "behavior_category": rng.integers(1, categories, (SAMPLES, HISTORY)) * real,
        **{f"user_{name}": rng.integers(1, values, SAMPLES) for name, values in USER_FIELDS.items()},
        **{f"context_{name}": rng.integers(1, values, SAMPLES) for name, values in CONTEXT_FIELDS.items()},
        "behavior_length": lengths,
        "label": rng.integers(0, 2, SAMPLES),
    }
    return {name: torch.from_numpy(values.astype(np.int32)) for name, values in columns.items()}


def cut(samples: Tensors, batch_size: int) -> Iterator[Tensors]:
    """Full batches of the samples."""
    for start in range(0, SAMPLES - batch_size + 1, batch_size):
        yield {name: values[start : start + batch_size].contiguous() for name, values in samples.items()}


if __name__ == "__main__":
    main()
