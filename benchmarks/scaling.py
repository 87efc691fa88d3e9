"""How does training scale with the ranks?

    python benchmarks/scaling.py
    python benchmarks/scaling.py --batch 128 --rounds 3 --gbits 100 --microseconds 10
    python benchmarks/scaling.py --compression fp16

Steps of MIAN with the paper's settings on batches that lie in memory, as ``benchmarks/train.py`` has them, on 1 and on 2 Horovod ranks of
one thread each, the same batch a rank, in turn, ``--rounds`` times. One JSON line a case: ``speedup`` is the median over the rounds of the
samples a second over those of one rank (larger is better), ``speedup_apart`` that of two trainings of one rank at the same time, which
exchange nothing: what the machine allows; ``bytes_per_step`` what each rank sent in a step, as the kernel counts the
loopback device, ``rows`` how many distinct embedding rows a rank's batch holds. The cases: tables on every rank, the same with tables ten
times as large, tables sharded over the ranks.

Then, to stderr, what these figures say of N hosts of a bandwidth and latency: milliseconds a step and the share of them that is computing,
for three ways to treat tables. ``dense``: the gradient of whole tables is reduced, as ``DistributedOptimizer`` does with dense gradients;
``sparse``: distinct rows are gathered on all ranks; ``split``: they travel between their rank and those that have them in a batch. It
counts bytes over bandwidth, messages times latency, and the measured time of working on rows; nothing overlaps, and no two ranks' rows are
the same, so that it is an upper bound.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from stream import made_up_contract
from train import SIZES, cut, fields, made_up, vocabulary_sizes

from mian.config import OptimizerConfig
from mian.distributed.collectives import Ranks
from mian.distributed.compression import gradient_codec
from mian.kernels import distinct, sum_by_place
from mian.layers import sharded_tables
from mian.models import build
from mian.optim.optimizer import Optimizer
from mian.training.step import TrainingStep

HOSTS = tuple(2**power for power in range(10))
FLOAT = ID = 4  # bytes


@dataclass(frozen=True)
class Case:
    """What is measured."""

    tables: str
    table_times: int


@dataclass(frozen=True)
class Measured:
    """What the first rank found."""

    samples_per_s: float
    bytes_per_step: float
    distinct_rows: float
    table_rows: int
    width: int
    dense_bytes: int
    seconds_a_row: float


CASES = (Case("replicated", 1), Case("replicated", 10), Case("sharded", 1))


def main() -> None:
    """Measure, print one JSON line a case and number of ranks, and the table."""
    parser = argparse.ArgumentParser(description="How does training scale with the ranks?")
    parser.add_argument("--size", choices=SIZES, default="electronics")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of steps, for each case in each round")
    parser.add_argument("--compression", choices=["none", "fp16", "bf16"], default="none", help="of gradients between ranks")
    parser.add_argument("--gbits", type=float, default=25.0, help="a second, between hosts")
    parser.add_argument("--microseconds", type=float, default=30.0, help="that a message between hosts takes at least")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        work(arguments)
        return
    rounds: dict[Case, list[tuple[Measured, Measured]]] = {case: [] for case in CASES}
    apart: dict[Case, list[float]] = {case: [] for case in CASES}
    for _, case in itertools.product(range(arguments.rounds), CASES):
        alone, together = launch(arguments, case, 1), launch(arguments, case, 2)
        rounds[case].append((alone, together))
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _, case=case: launch(arguments, case, 1), range(2)))
        apart[case].append(sum(one.samples_per_s for one in both) / alone.samples_per_s)
    for case, measured in rounds.items():
        speedups = (1.0, statistics.median(two.samples_per_s / one.samples_per_s for one, two in measured))
        for ranks, speedup in enumerate(speedups, start=1):
            runs = [both[ranks - 1] for both in measured]
            line = {
                "benchmark": "scaling",
                "size": arguments.size,
                "batch": arguments.batch,
                "tables": case.tables,
                "compression": arguments.compression,
                "table_rows": runs[0].table_rows,
                "ranks": ranks,
                "samples_per_s": round(statistics.median(one.samples_per_s for one in runs)),
                "speedup": round(speedup, 2),
                "speedup_apart": 1.0 if ranks == 1 else round(statistics.median(apart[case]), 2),
                "bytes_per_step": round(statistics.median(one.bytes_per_step for one in runs)),
                "rows": round(runs[0].distinct_rows),
            }
            print(json.dumps(line), flush=True)
    single_rank = sorted((one for one, _ in rounds[CASES[0]]), key=lambda one: one.samples_per_s)
    print(table_of_hosts(arguments, single_rank[len(single_rank) // 2]), file=sys.stderr)


def launch(arguments: argparse.Namespace, case: Case, ranks: int) -> Measured:
    """Measure on so many ranks of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "case.json").write_text(json.dumps(asdict(case)))
        own = ["--rank", folder, "--size", arguments.size, "--batch", str(arguments.batch), "--seconds", str(arguments.seconds)]
        own += ["--compression", arguments.compression]
        command = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks), "--gloo", sys.executable, __file__, *own]
        root = str(Path(__file__).resolve().parents[1])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        launched = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if launched.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {launched.returncode}:\n{launched.stdout}{launched.stderr}")
        return Measured(**json.loads((Path(folder) / "measured.json").read_text()))


def work(arguments: argparse.Namespace) -> None:
    """One rank."""
    ranks = Ranks()
    ranks.compress_gradients(gradient_codec(arguments.compression))
    torch.set_num_threads(1)
    case = Case(**json.loads((Path(arguments.rank) / "case.json").read_text()))
    torch.manual_seed(ranks.rank)
    rows_of = {name: size * case.table_times for name, size in vocabulary_sizes(SIZES[arguments.size]).items()}
    with sharded_tables(ranks if case.tables == "sharded" and ranks.size > 1 else None):
        model = build("mian", made_up_contract(fields(), rows_of), {})
    step = TrainingStep(model, Optimizer(model, OptimizerConfig(), ranks))
    batches = list(cut(made_up(*SIZES[arguments.size]), arguments.batch))[ranks.rank :: ranks.size]
    turns = itertools.cycle(batches)

    def steps(count: int) -> float:
        ranks.barrier()
        started = time.perf_counter()
        for batch in itertools.islice(turns, count):
            step(batch, 0.0)
        ranks.barrier()
        return time.perf_counter() - started

    steps(3)
    count = ranks.broadcast_object(max(3, round(arguments.seconds / (steps(5) / 5))))
    before = sent()
    elapsed = steps(count)
    exchanged = sent() - before
    table = next(iter(model.tables().values()))
    distinct_rows = statistics.mean(len(distinct(rows_looked_up(model, batch))[0]) for batch in batches[:10])
    if ranks.is_first:
        measured = Measured(
            samples_per_s=count * arguments.batch * ranks.size / elapsed,
            bytes_per_step=exchanged / count / ranks.size,
            distinct_rows=distinct_rows,
            table_rows=table.rows,
            width=table.width,
            dense_bytes=sum(parameter.numel() * FLOAT for parameter in model.dense_parameters().values()),
            seconds_a_row=seconds_a_row(round(distinct_rows), table.rows, table.width),
        )
        (Path(arguments.rank) / "measured.json").write_text(json.dumps(asdict(measured)))
    ranks.barrier()


def sent() -> int:
    """Bytes that went over the loopback device so far."""
    counters = psutil.net_io_counters(pernic=True)
    return int(counters["lo"].bytes_sent)


def rows_looked_up(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The rows of the table that a batch has, int ``(N,)``."""
    found: list[torch.Tensor] = []
    (table,) = model.tables().values()  # type: ignore[operator]
    hook = table.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.no_grad():
        model(batch)
    hook.remove()
    return found[0]


def seconds_a_row(rows: int, table_rows: int, width: int) -> float:
    """How long a row of another rank takes here: finding its place, adding it up, updating it."""
    from mian.optim.sparse import LazyAdam

    both_ranks = torch.cat([torch.randperm(table_rows)[:rows] for _ in range(2)])
    gradients = torch.randn(len(both_ranks), width)
    adam = LazyAdam(torch.zeros(table_rows, width), (0.9, 0.999))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        together, places = distinct(both_ranks)
        adam.step(together, sum_by_place(gradients, places, len(together)), 1e-3)
        times.append((time.perf_counter() - started) / len(both_ranks))
    return statistics.median(times)


def table_of_hosts(arguments: argparse.Namespace, one: Measured) -> str:
    """What a step takes on N hosts, see the module."""
    bandwidth, latency = arguments.gbits * 1e9 / 8, arguments.microseconds * 1e-6
    computing = arguments.batch / one.samples_per_s
    row, rows = one.width * FLOAT, one.distinct_rows
    sent = 1.0 if arguments.compression == "none" else 0.5  # of a gradient's bytes

    def reduced(size: float, hosts: int) -> float:
        """Seconds of a ring."""
        return float(2 * (hosts - 1) * (size / hosts / bandwidth + latency))

    def ways(hosts: int) -> dict[str, float]:
        others = hosts - 1
        dense = reduced(one.dense_bytes * sent, hosts)
        merged = others * rows * one.seconds_a_row
        return {
            "dense": reduced((one.dense_bytes + one.table_rows * row) * sent, hosts),
            "sparse": dense + others * (rows * (2 * ID + row * sent) / bandwidth + latency) + merged,
            "sharded": dense + others / hosts * rows * (ID + row + row * sent) / bandwidth + 3 * others * latency,
        }

    head = f"{'hosts':>6}" + "".join(f"{way + ' ms':>12}{'computing':>11}" for way in ways(1))
    lines = [
        f"{arguments.batch} samples a rank, {computing * 1e3:.1f} ms of computing, {arguments.gbits:g} Gbit/s, "
        f"{arguments.microseconds:g} us a message, {one.table_rows:,} rows of {row} bytes, {rows:,.0f} of them in a batch",
        head,
    ]
    for hosts in HOSTS:
        cells = [f"{(computing + extra) * 1e3:>12.1f}{computing / (computing + extra):>11.1%}" for extra in ways(hosts).values()]
        lines.append(f"{hosts:>6}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
