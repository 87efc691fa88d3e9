"""``python scored_memory.py ROWS CAPACITY``: by how many bytes the process grew at most while it evaluated so many rows."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from mian.distributed.collectives import Ranks
from mian.evaluation.distributed_metrics import ScoredRows

BATCH = 4096


def evaluate(rows: int, capacity: int) -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, ScoredRows(Ranks(), Path(folder), capacity) as scored:
        for start in range(0, rows, BATCH):
            count = min(BATCH, rows - start)
            p = random.random(count).astype(np.float32)
            scored.add((random.random(count) < p).astype(np.int32), p, random.integers(0, 1 + rows // 20, count))
        assert scored.evaluate().metrics["rows"] == rows


def peak() -> int:
    """Of this program alone: what ``getrusage`` tells begins with the peak of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    evaluate(10_000, 1_000)  # what the libraries take once
    before = peak()
    evaluate(int(sys.argv[1]), int(sys.argv[2]))
    print(peak() - before)
