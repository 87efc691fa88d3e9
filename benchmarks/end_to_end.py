"""How long does a training wait for its data?

    python benchmarks/end_to_end.py
    python benchmarks/end_to_end.py --batches 4096 --points 20

Trains MIAN with the paper's settings from Parquet files, as ``jobs/train.py`` does on one rank, and prints one JSON line a batch size:
``samples_per_s``, and ``waiting_share``, the share of the time in which a step waited for its batch (smaller is better), both of medians
over the points of the training curve but the first, in which reading and the processor's caches warm up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stream import write_samples

from mian.config import TrainConfig
from mian.contract import Contract
from mian.contract.document import LABEL_COLUMN, USER_COLUMN
from mian.distributed.collectives import Ranks
from mian.models import model_columns
from mian.stream import SampleStream
from mian.training import Streams, Trainer

HELD_OUT_ROWS = 5_000


def main() -> None:
    """Measure, and print one JSON line a batch size."""
    parser = argparse.ArgumentParser(description="How long does a training wait for its data?")
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--rows-per-file", type=int, default=50_000, help="each file is one row group")
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024, 4096])
    parser.add_argument("--points", type=int, default=9, help="of the training curve, the first one is left out")
    parser.add_argument("--samples", type=int, default=65_536, help="between two points of the curve")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, held_out = Path(folder) / "samples", Path(folder) / "held-out"
        samples.mkdir()
        held_out.mkdir()
        contract = write_samples(samples, arguments.rows, arguments.rows_per_file)
        contract_held_out = write_samples(held_out, HELD_OUT_ROWS, HELD_OUT_ROWS)
        for batch_size in arguments.batches:
            log_every = max(1, arguments.samples // batch_size)
            config = TrainConfig(
                samples=str(samples),
                output=folder,
                batch_size=batch_size,
                max_steps=log_every * arguments.points,
                log_every=log_every,
                threads=arguments.threads,
                epochs=1 + arguments.points * arguments.samples // arguments.rows,
                patience=1_000,
                test_split=None,
            )
            points = trained(config, contract, str(held_out), contract_held_out)[1:]
            line = {
                "benchmark": "end_to_end",
                "model": config.model.name,
                "batch": batch_size,
                "threads": arguments.threads,
                "samples_per_s": round(statistics.median(point["samples_per_second"] for point in points)),
                "waiting_share": round(statistics.median(point["time_waiting_share"] for point in points), 4),
            }
            print(json.dumps(line), flush=True)


def trained(config: TrainConfig, contract: Contract, held_out: str, contract_held_out: Contract) -> list[Mapping[str, float]]:
    """The points of a training's curve."""
    points: list[Mapping[str, float]] = []

    def report(metrics: Mapping[str, float], step: int) -> None:
        if "time_waiting_share" in metrics:
            points.append(metrics)

    columns = model_columns(config.model.name, contract, config.model.options)
    streams = Streams(
        SampleStream(
            config.samples, contract, "train", config.batch_size, workers=config.stream.workers, columns=(*columns, LABEL_COLUMN)
        ),
        SampleStream(
            held_out,
            contract_held_out,
            "train",
            config.evaluation_batch_size,
            shuffle=False,
            drop_last=False,
            columns=(*columns, LABEL_COLUMN, USER_COLUMN),
        ),
        None,
    )
    Trainer(config, contract, streams, Ranks(), report).run()
    return points


if __name__ == "__main__":
    main()
