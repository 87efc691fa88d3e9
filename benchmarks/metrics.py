"""What do the metrics of a scored split cost, and how much memory do they take?

    python benchmarks/metrics.py
    python benchmarks/metrics.py --rows 100000000

Evaluates made-up scores of one rank, once as a training does, a batch at a time with two million rows in memory at most, and once with all
rows in memory, each in a process of its own, and prints one JSON line. ``seconds`` includes adding the rows and not drawing them;
``peak_mib`` is by how much the process grew while it evaluated, in the second case without the rows themselves.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mian.distributed.collectives import Ranks
from mian.evaluation.distributed_metrics import CAPACITY, ScoredRows
from mian.metrics import evaluate, reliability

BATCH = 4096
IMPRESSIONS_A_USER = 30

Columns = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description="What do the metrics of a scored split cost?")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--capacity", type=int, default=CAPACITY, help="rows in memory")
    parser.add_argument("--folder", help="where the others go; removed at the end")
    parser.add_argument("--case", choices=["bounded", "in_memory"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(arguments)))
        return
    found = {
        case: json.loads(subprocess.check_output([sys.executable, __file__, *sys.argv[1:], "--case", case]))
        for case in ("bounded", "in_memory")
    }
    bounded, whole = found["bounded"], found["in_memory"]
    result = {
        "benchmark": "metrics",
        "rows": arguments.rows,
        "capacity": arguments.capacity,
        "rows_per_s": round(arguments.rows / bounded["seconds"]),
        "time_vs_in_memory": round(bounded["seconds"] / whole["seconds"], 2),
        "peak_mib": bounded["peak_mib"],
        "in_memory_peak_mib": whole["peak_mib"],
        "largest_difference": max(abs(bounded["metrics"][name] - value) for name, value in whole["metrics"].items()),
    }
    print(json.dumps(result))


def batches(rows: int) -> Iterator[Columns]:
    """Rows whose clicks are as probable as their scores say."""
    random = np.random.default_rng(0)
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        p = random.beta(1, 20, count).astype(np.float32)
        yield (random.random(count) < p).astype(np.int32), p, random.integers(0, 1 + rows // IMPRESSIONS_A_USER, count)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """What one case takes, and the metrics that it finds."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.case == "in_memory":
            labels, probabilities, users = (np.concatenate(columns) for columns in zip(*batches(arguments.rows), strict=True))
            before, began = peak_mib(), time.perf_counter()
            metrics = evaluate(labels, probabilities, users)
            reliability(labels, probabilities)
            return {"seconds": time.perf_counter() - began, "peak_mib": peak_mib() - before, "metrics": metrics}
        with ScoredRows(Ranks(), Path(folder), arguments.capacity) as scored:
            before, seconds = peak_mib(), 0.0
            for batch in batches(arguments.rows):
                began = time.perf_counter()
                scored.add(*batch)
                seconds += time.perf_counter() - began
            began = time.perf_counter()
            evaluation = scored.evaluate()
            evaluation.reliability()
            seconds += time.perf_counter() - began
        return {"seconds": seconds, "peak_mib": peak_mib() - before, "metrics": evaluation.metrics}


def peak_mib() -> int:
    """The most memory that this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
