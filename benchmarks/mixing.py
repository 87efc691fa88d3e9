"""How well does the stream mix days, and does it matter?

    python benchmarks/mixing.py

Prints one JSON line for each way to shuffle: windows of whole row groups (``mixed_row_groups`` as ``shuffle_window``, 4), the default, and
one window of all rows.

- ``days_in_batch``: of the days of a split that is laid out as that of ``conf/data/simulated.yaml`` (38 days of one row group of 13,700
  rows each, two ranks, batches of 256), how many a global batch has rows of, on average, and in the worst batch. Arithmetic of the plan;
  nothing is read.
- ``calibration``: of the validation split at the end of a small training, by seed. The samples are made up: 24 days of 1,500 rows, on
  every third of which most rows are clicked for a reason that no field tells. A training whose last batches are of some days alone ends
  with their rate. ``spread`` is the greatest less the least.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from stream import FIELDS, SIZES, made_up, made_up_contract

from mian.config import TrainConfig
from mian.contract import Contract, Day, SampleFile, Split
from mian.distributed.collectives import Ranks
from mian.stream.read_plan import RowGroup, plan_slices, shuffled_windows
from mian.stream.sharding import RankShard
from mian.training import Trainer, open_streams

FIRST = dt.date(2026, 1, 1)
WAYS = {"whole row groups": (4, 4), "default": (4, 32), "all rows": (38, 38)}


def main() -> None:
    """Measure, and print one JSON line a way."""
    parser = argparse.ArgumentParser(description="How well does the stream mix days, and does it matter?")
    parser.add_argument("--days", type=int, default=38, help="of the layout")
    parser.add_argument("--ranks", type=int, default=2, help="of the layout")
    parser.add_argument("--seeds", type=int, default=8, help="trainings of each way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contract = write_days(Path(folder))
        for name, (window, mixed) in WAYS.items():
            counts = days_in_batches(arguments.days, arguments.ranks, 256, window, mixed)
            found = [calibration(folder, contract, seed, window, mixed) for seed in range(arguments.seeds)]
            result = {
                "benchmark": "mixing",
                "way": name,
                "shuffle_window": window,
                "mixed_row_groups": mixed,
                "days_in_batch": {"mean": round(statistics.mean(counts), 1), "least": min(counts), "of": arguments.days},
                "calibration": {"by_seed": [round(value, 3) for value in found], "spread": round(max(found) - min(found), 3)},
            }
            print(json.dumps(result), flush=True)


def days_in_batches(days: int, ranks: int, batch: int, window: int, mixed: int, rows: int = 13_700) -> list[int]:
    """How many days each global batch of an epoch has rows of, where each day is one row group."""
    groups = [RowGroup(f"day={n}/part-00000.parquet", 0, rows, FIRST + dt.timedelta(days=n)) for n in range(days)]
    parts = []
    for rank in range(ranks):
        share = RankShard(rows * days, batch, rank, ranks, True, "sharded")
        seen = []
        for read in plan_slices(shuffled_windows(groups, window, mixed, 0, 0, borders=share.borders), share.spans()):
            pieces = read.window.pieces
            numbers = np.repeat([(piece.group.day - FIRST).days for piece in pieces], [piece.rows for piece in pieces])
            order = torch.randperm(read.window.rows, generator=torch.Generator().manual_seed(read.window.seed or 0)).numpy()
            seen += [numbers[order[start:stop]] for start, stop in read.spans]
        parts.append(np.concatenate(seen).reshape(share.steps, batch))
    return [len(np.unique(step_days)) for step_days in np.concatenate(parts, axis=1)]


def calibration(folder: str, contract: Contract, seed: int, window: int, mixed: int) -> float:
    """The calibration on the validation split after a training: the mean probability over the share of clicks."""
    config = TrainConfig.model_validate(
        {
            "samples": folder,
            "output": folder,
            "model": {"name": "din", "options": {"mlp": [16], "unit": [8]}},
            "seed": seed,
            "epochs": 2,
            "batch_size": 128,
            "test_split": None,
            "threads": 1,
            "device": "cpu",
            "checkpoint": {"enabled": False},
            "optimizer": {"learning_rate": 3e-3},
            "stream": {"shuffle_window": window, "mixed_row_groups": mixed},
        }
    )
    found: list[float] = []
    ranks = Ranks()

    def report(metrics: Mapping[str, float], step: int) -> None:
        found.extend(value for name, value in metrics.items() if name == "validation_calibration")

    Trainer(config, contract, open_streams(config, contract, ranks), ranks, report, None, lambda: False).run()
    return found[-1]


def write_days(folder: Path, days: int = 24, held_out: int = 3, rows: int = 1_500) -> Contract:
    """Write the made-up samples, each day a file of one row group, the last days the validation split."""
    rng = np.random.default_rng(0)
    sizes = {name: min(size, 2_000) for name, size in SIZES.items()}
    written: list[Day] = []
    for number in range(days + held_out):
        path = folder / f"part-{number:05d}.parquet"
        table = made_up(rng, number * rows, rows)
        clicked = rng.random(rows) < (0.55 if number % 3 == 0 else 0.1)
        table = table.set_column(table.schema.get_field_index("label"), "label", pa.array(clicked.astype(np.int32)))
        pq.write_table(_within(table, sizes), path, compression="zstd")
        file = SampleFile(path=path.name, rows=rows, bytes=path.stat().st_size, sha256="")
        day = FIRST + dt.timedelta(days=number)
        written.append(Day(day=day, rows=rows, positives=int(clicked.sum()), fingerprint="", files=(file,)))
    splits = {
        "train": Split(first=FIRST, last=written[days - 1].day),
        "validation": Split(first=written[days].day, last=written[-1].day),
    }
    return made_up_contract(FIELDS, sizes, written).model_copy(update={"splits": splits})


def _within(table: pa.Table, sizes: dict[str, int]) -> pa.Table:
    """The table with ids that fit smaller vocabularies."""
    for field in FIELDS:
        if field.vocabulary is None:
            continue
        values = table.column(field.column).combine_chunks()
        flat = values.flatten() if pa.types.is_list(values.type) else values
        ids = np.minimum(flat.to_numpy(), sizes[field.vocabulary] - 1).astype(np.int32)
        column: Sequence[object] = pa.array(ids)
        if pa.types.is_list(values.type):
            column = pa.ListArray.from_arrays(values.offsets, pa.array(ids))
        table = table.set_column(table.schema.get_field_index(field.column), field.column, column)
    return table


if __name__ == "__main__":
    main()
