"""Can a table be trained that is larger than any worker?

    python benchmarks/sharded_table.py
    python benchmarks/sharded_table.py --rows 10000000 --ranks 2 --gib 2 --checkpoint

Trains MIAN with an item vocabulary of 100 million on made-up samples, row-wise Adagrad, with real Horovod ranks that are each held to 3 GiB
by a control group of their own, all that a process uses counted (needs root, and cgroups): first with the table sharded, then
with a whole one on each, and prints one JSON line. ``peak_gib`` is the most that each rank used; ``whole`` says what became of the ranks
that were to have all of it: how many came to the end, and with which code the first one that did not ended.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from stream import DAY, FIELDS, HISTORY, SIZES, made_up, made_up_contract

from mian.checkpoint.store import CheckpointStore
from mian.config import TrainConfig
from mian.contract import Contract, Day, SampleFile, Split
from mian.distributed.collectives import Ranks
from mian.training import Trainer, open_streams

GIB = 1 << 30
WIDTH = 16
GROUPS = Path("/sys/fs/cgroup")
JOIN = 'echo $$ > "$0-$HOROVOD_RANK/cgroup.procs"; exec "$@"'


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description="Can a table be trained that is larger than any worker?")
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--gib", type=float, default=3.0, help="what each rank may use")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--checkpoint", action="store_true", help="take a checkpoint after the last step")
    parser.add_argument("--folder", help="where samples and checkpoints go; removed at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        contract = write_samples(Path(folder), arguments)
        (Path(folder) / "contract.json").write_text(contract.to_json(), encoding="utf-8")
        split = launch(Path(folder), arguments, "sharded")
        if split["code"]:
            sys.exit(split["output"])
        whole = launch(Path(folder), arguments, "replicated")
    first = split["ranks"][0]
    result = {
        "benchmark": "sharded_table",
        "rows": arguments.rows,
        "table_gib": round(arguments.rows * WIDTH * 4 / GIB, 2),
        "ranks": arguments.ranks,
        "limit_gib": arguments.gib,
        "steps": first["steps"],
        "batch_size": arguments.batch_size,
        "set_up_seconds": first["set_up_seconds"],
        "seconds_a_step": first["seconds_a_step"],
        "checkpoint_gib": first["checkpoint_gib"],
        "peak_gib": split["peak_gib"],
        "logloss": first["logloss"],
        "whole": {"ranks_at_the_end": len(whole["ranks"]), "first_exit_code": first_exit_code(whole["output"])},
    }
    print(json.dumps(result))


def write_samples(folder: Path, arguments: argparse.Namespace) -> Contract:
    """A day to train on, exactly as many rows as the steps take, and one to validate on; item ids of all over the table."""
    rng = np.random.default_rng(0)
    rows = arguments.steps * arguments.batch_size * arguments.ranks
    days = []
    for number, count in enumerate((rows, arguments.batch_size * arguments.ranks)):
        files = []
        file_rows = count // arguments.ranks
        for number_of_file in range(arguments.ranks):
            table = with_items_of_all_ids(made_up(rng, number_of_file * file_rows, file_rows), rng, arguments.rows)
            path = folder / f"day-{number}-{number_of_file}.parquet"
            pq.write_table(table, path)
            files.append(SampleFile(path=path.name, rows=file_rows, bytes=path.stat().st_size, sha256=""))
        days.append(Day(day=DAY + dt.timedelta(number), rows=count, positives=0, fingerprint="", files=tuple(files)))
    contract = made_up_contract(FIELDS, {**SIZES, "item_id": arguments.rows + 1}, days)
    held_out = Split(first=days[1].day, last=days[1].day)
    return contract.model_copy(update={"splits": {**contract.splits, "validation": held_out}})


def with_items_of_all_ids(table: pa.Table, rng: np.random.Generator, ids: int) -> pa.Table:
    """The samples with other items, as skewed, of so many."""

    def draw(size: int) -> npt.NDArray[np.int32]:
        return (rng.random(size) ** 3 * (ids - 1)).astype(np.int32) + 1

    behaviors = table["behavior_item_id"].combine_chunks()
    items = np.where(behaviors.flatten().to_numpy() == 0, np.int32(0), draw(len(table) * HISTORY))
    changed = {
        "candidate_item_id": pa.array(draw(len(table))),
        "behavior_item_id": pa.ListArray.from_arrays(behaviors.offsets, pa.array(items)),
    }
    for name, values in changed.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def launch(folder: Path, arguments: argparse.Namespace, placement: str) -> dict[str, Any]:
    """Train on held ranks: the launcher's exit code, what it said, what each rank left, and the most that each used."""
    config = {
        "samples": str(folder),
        "model": {"options": {"embedding_dim": WIDTH}},
        "optimizer": {"tables": "rowwise_adagrad", "learning_rate_tables": 0.02},
        "tables": {"placement": placement},
        "checkpoint": {"enabled": arguments.checkpoint},
        "batch_size": arguments.batch_size,
        "evaluation_batch_size": arguments.batch_size,
        "epochs": 1,
        "test_split": None,
        "log_every": max(1, arguments.steps // 2),
        "threads": 1,
        "output": str(folder / placement),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with ExitStack() as stack:
        name = f"mian-{os.getpid()}"
        groups = [stack.enter_context(held(f"{name}-{rank}", arguments.gib)) for rank in range(arguments.ranks)]
        command = [
            "sh",
            "-c",
            JOIN,
            str(groups[0].with_name(name)),
            sys.executable,
            str(Path(__file__).resolve()),
            "--rank",
            str(folder),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        launched = subprocess.run(
            [str(Path(sys.executable).with_name("horovodrun")), "-np", str(arguments.ranks), "--gloo", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        peaks = [round(most_used(group) / GIB, 2) for group in groups]
    left = sorted((folder / placement).glob("rank-*.json"))
    ranks = [json.loads(path.read_text()) for path in left]
    return {"code": launched.returncode, "output": launched.stdout, "ranks": ranks, "peak_gib": peaks}


def first_exit_code(output: str) -> int | None:
    """Of the process that horovodrun says ended first in an error: 137, or -9, where it was killed; None where none did."""
    found = re.search(r"Exit code: (-?\d+)", output)
    return int(found.group(1)) if found else None


@contextmanager
def held(name: str, gib: float) -> Iterator[Path]:
    """A control group of so much memory, for as long as the context lasts."""
    is_v1 = (GROUPS / "memory").is_dir()
    group = (GROUPS / "memory" if is_v1 else GROUPS) / name
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(int(gib * GIB)))
        yield group
    finally:
        group.rmdir()


def most_used(group: Path) -> int:
    """Bytes."""
    v1 = group / "memory.max_usage_in_bytes"
    return int((v1 if v1.exists() else group / "memory.peak").read_text())


def train(folder: Path) -> None:
    """One rank: train, and leave what there is to say."""
    ranks = Ranks()
    config = TrainConfig.model_validate_json((folder / "config.json").read_text())
    contract = Contract.from_json((folder / "contract.json").read_text(), str(folder))
    points: list[tuple[int, float, float]] = []

    def report(metrics: Mapping[str, float], step: int) -> None:
        if "train_logloss" in metrics:
            points.append((step, metrics["train_logloss"], time.perf_counter()))

    streams = open_streams(config, contract, ranks)
    store = CheckpointStore(Path(config.output) / "checkpoints", 1) if ranks.is_first and config.checkpoint.enabled else None
    started = time.perf_counter()
    trainer = Trainer(config, contract, streams, ranks, report, store)
    set_up = time.perf_counter() - started
    trained = trainer.run()
    left: dict[str, Any] = {"steps": trained.steps}
    if ranks.is_first:
        (first, loss, at), (last, end_loss, end) = points[0], points[-1]
        files = (Path(config.output) / "checkpoints").rglob("*") if store is not None else []
        left |= {
            "set_up_seconds": round(set_up, 1),
            "seconds_a_step": round((end - at) / (last - first), 4),
            "checkpoint_gib": round(sum(path.stat().st_size for path in files if path.is_file()) / GIB, 2),
            "logloss": [round(loss, 4), round(end_loss, 4)],
        }
    Path(config.output).mkdir(parents=True, exist_ok=True)
    (Path(config.output) / f"rank-{ranks.rank}.json").write_text(json.dumps(left))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        train(Path(sys.argv[2]))
    else:
        main()
