"""How fast is the stream, and does it stay within its memory?

    python benchmarks/stream.py --rows 1200000

Reads generated samples, batch by batch into tensors, in several ways in turn, several rounds in one run, and prints one JSON line:

- ``plain``, ``shuffled``: :class:`mian.stream.SampleStream` without shuffling, and shuffled over windows of several row groups;
- ``resident``: shuffled, with the shard in memory, from the second epoch on;
- ``floor``: a plain loop over ``pyarrow.dataset`` batches with ``use_threads=False``, one thread, no checks, no shuffling;
- ``stock``: Petastorm's own ``make_batch_reader`` and ``BatchedDataLoader``, without shuffling;
- ``stock_rows``: the same with its ``DataLoader``, which goes row by row, on the first file alone.

``plain_vs_floor`` and ``shuffled_vs_floor`` are time over time (smaller is better), ``vs_stock_loader`` is the shuffled
stream's rows a second over those of ``stock``, ``vs_stock_row_loader`` over those of ``stock_rows`` (larger is better); all of
medians over the rounds. ``cpu_seconds`` is the processor time of each, over all threads: what can still be compared where the
machine had other work to do.

``memory_growth`` is the resident set of a process of its own that does nothing but read the shuffled stream: the median of the last five
epochs' peaks over that of the five after the first epoch (1 is flat). ``peak_mib`` has both, and the largest of all.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import torch

from mian.contract import (
    Contract,
    Day,
    Field,
    History,
    Label,
    NumericTransform,
    SampleFile,
    Split,
    Vocabulary,
)
from mian.stream import SampleStream

HISTORY = 30
DAY = dt.date(2026, 1, 1)
TRANSFORM = NumericTransform(kind="log", mean=0.0, std=1.0)
FIELDS = (
    Field(group="candidate", name="item_id", vocabulary="item_id"),
    Field(group="candidate", name="category", vocabulary="category"),
    Field(group="candidate", name="price", transform=TRANSFORM),
    Field(group="behaviors", name="item_id", vocabulary="item_id"),
    Field(group="behaviors", name="category", vocabulary="category"),
    Field(group="behaviors", name="price", transform=TRANSFORM),
    Field(group="user", name="user_id", vocabulary="user_id"),
    Field(group="user", name="age", vocabulary="age"),
    Field(group="user", name="city", vocabulary="city"),
    Field(group="context", name="hour", vocabulary="hour"),
    Field(group="context", name="position", vocabulary="position"),
)
SIZES = {"item_id": 63_000, "category": 800, "user_id": 192_000, "age": 10, "city": 500, "hour": 26, "position": 20}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description="How fast is the stream, and does it stay within its memory?")
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--rows-per-file", type=int, default=50_000, help="each file is one row group")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2, help="reading threads, of ours and of the stock reader")
    parser.add_argument("--window", type=int, default=4, help="row groups that are shuffled together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="of the measurement of memory")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        contract = write_samples(Path(folder), arguments.rows, arguments.rows_per_file)
        stream = functools.partial(
            SampleStream,
            folder,
            contract,
            "train",
            arguments.batch_size,
            drop_last=False,
            workers=arguments.workers,
            shuffle_window=arguments.window,
        )
        plain, shuffled, resident = stream(shuffle=False), stream(), stream(resident=True)
        files = [str(Path(folder) / file.path) for day in contract.days for file in day.files]
        columns = list(next(plain.epoch(0)))
        ways: dict[str, Callable[[int], Iterable[Mapping[str, torch.Tensor]]]] = {
            "floor": lambda epoch: floor(files, columns, arguments.batch_size),
            "plain": plain.epoch,
            "shuffled": shuffled.epoch,
            "resident": resident.epoch,
            "stock": lambda epoch: stock(files, columns, arguments.batch_size, arguments.workers),
            "stock_rows": lambda epoch: stock(files[:1], columns, arguments.batch_size, arguments.workers, by_row=True),
        }
        all_rows = dict.fromkeys(ways, arguments.rows) | {"stock_rows": contract.days[0].files[0].rows}
        times: dict[str, list[float]] = {name: [] for name in ways}
        cpu_times: dict[str, list[float]] = {name: [] for name in ways}
        for epoch in range(arguments.rounds + 1):
            for name, way in ways.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                rows = sum(len(batch["label"]) for batch in way(epoch))
                elapsed, cpu_elapsed = time.perf_counter() - start, time.process_time() - cpu_start
                if rows != all_rows[name]:
                    raise RuntimeError(f"{name} read {rows} of {all_rows[name]} rows")
                if epoch:  # the first round warms the page cache
                    times[name].append(elapsed)
                    cpu_times[name].append(cpu_elapsed)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            peaks = process.submit(peak_memory, shuffled, arguments.epochs).result()

    seconds = {name: statistics.median(measured) for name, measured in times.items()}
    rates = {name: all_rows[name] / seconds[name] for name in ways}
    early, late = statistics.median(peaks[1:6]), statistics.median(peaks[-5:])
    result = {
        "benchmark": "stream",
        "rows": arguments.rows,
        "files": len(files),
        "batch_size": arguments.batch_size,
        "workers": arguments.workers,
        "window": arguments.window,
        "rounds": arguments.rounds,
        "rows_per_second": {name: round(rate) for name, rate in rates.items()},
        "cpu_seconds": {name: round(statistics.median(measured), 3) for name, measured in cpu_times.items()},
        "plain_vs_floor": round(seconds["plain"] / seconds["floor"], 2),
        "shuffled_vs_floor": round(seconds["shuffled"] / seconds["floor"], 2),
        "vs_stock_loader": round(rates["shuffled"] / rates["stock"], 2),
        "vs_stock_row_loader": round(rates["shuffled"] / rates["stock_rows"], 2),
        "epochs_of_memory": arguments.epochs,
        "peak_mib": {"first": round(early), "last": round(late), "largest": round(max(peaks))},
        "memory_growth": round(late / early, 3),
    }
    print(json.dumps(result))


def peak_memory(stream: SampleStream, epochs: int) -> list[float]:
    """The largest resident set of this process in each epoch of a stream, MiB, looked at every 50 batches."""
    process = psutil.Process()
    peaks = []
    for epoch in range(epochs):
        sizes = [process.memory_info().rss for number, _ in enumerate(stream.epoch(epoch)) if number % 50 == 0]
        peaks.append(max(sizes) / 2**20)
    return peaks


def floor(files: list[str], columns: list[str], batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
    """The plain loop: what reading Parquet into tensors costs at least in one thread."""
    dataset = pyarrow.dataset.dataset(files)
    for batch in dataset.to_batches(columns=columns, batch_size=batch_size, use_threads=False):
        tensors = {}
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            is_list = pa.types.is_list(array.type)
            values = (array.flatten() if is_list else array).to_numpy()
            tensors[name] = torch.from_numpy(values.reshape(len(array), -1) if is_list else values)
        yield tensors


def stock(
    files: list[str], columns: list[str], batch_size: int, workers: int, by_row: bool = False
) -> Iterator[Mapping[str, torch.Tensor]]:
    """Petastorm as its documentation says."""
    from petastorm import make_batch_reader
    from petastorm.pytorch import BatchedDataLoader, DataLoader

    reader = make_batch_reader(
        [f"file://{file}" for file in files],
        schema_fields=[f"^{column}$" for column in columns],
        workers_count=workers,
        shuffle_row_groups=False,
    )
    with (DataLoader if by_row else BatchedDataLoader)(reader, batch_size=batch_size) as loader:
        yield from loader


def write_samples(folder: Path, rows: int, rows_per_file: int) -> Contract:
    """Write made-up samples of one day, each file one row group, zstd.

    Args:
        folder: where to.
        rows: how many.
        rows_per_file: the last file may have fewer.

    Returns:
        Their contract.
    """
    rng = np.random.default_rng(0)
    files: list[SampleFile] = []
    for start in range(0, rows, rows_per_file):
        count = min(rows_per_file, rows - start)
        path = folder / f"part-{len(files):05d}.parquet"
        pq.write_table(made_up(rng, start, count), path, compression="zstd", row_group_size=count)
        files.append(SampleFile(path=path.name, rows=count, bytes=path.stat().st_size, sha256=""))
    return made_up_contract(FIELDS, SIZES, (Day(day=DAY, rows=rows, positives=0, fingerprint="", files=tuple(files)),))


def made_up_contract(fields: Sequence[Field], sizes: Mapping[str, int], days: Sequence[Day] = ()) -> Contract:
    """The contract of made-up samples.

    Args:
        fields: of the samples.
        sizes: ids of each vocabulary.
        days: with their files.
    """
    return Contract(
        name="made-up",
        fields=tuple(fields),
        vocabularies=tuple(Vocabulary(name=name, size=size, path="", sha256="") for name, size in sizes.items()),
        vocabulary_fingerprint="",
        history=History(length=HISTORY, days=30),
        label=Label(kind="labeled"),
        splits={"train": Split(first=DAY, last=DAY)},
        config_fingerprint="",
        code_fingerprint="",
        days=tuple(days),
    )


def made_up(rng: np.random.Generator, start: int, rows: int) -> pa.Table:
    """A table of ``rows`` samples: ids as skewed as items are in logs, histories of any length, padded with 0 at the end."""
    lengths = rng.integers(0, HISTORY + 1, rows, dtype=np.int32)
    padding = np.arange(HISTORY) >= lengths[:, None]
    offsets = pa.array(np.arange(0, rows * HISTORY + 1, HISTORY, dtype=np.int32))
    columns: dict[str, pa.Array] = {}
    for field in FIELDS:
        shape = (rows, HISTORY) if field.group == "behaviors" else (rows,)
        values: npt.NDArray[np.float32] | npt.NDArray[np.int32]
        if field.vocabulary is None:
            values = rng.standard_normal(shape, dtype=np.float32)
        else:
            values = (rng.random(shape) ** 3 * (SIZES[field.vocabulary] - 1)).astype(np.int32) + 1
        if field.group == "behaviors":
            values[padding] = 0
            columns[field.column] = pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
        else:
            columns[field.column] = pa.array(values)
    columns["behavior_length"] = pa.array(lengths)
    columns["label"] = pa.array((rng.random(rows) < 0.1).astype(np.int32))
    columns["user_key"] = pa.array(rng.integers(-(2**63), 2**63 - 1, rows, dtype=np.int64))
    columns["impression_id"] = pa.array([f"i{start + row}" for row in range(rows)])
    columns["time"] = pa.array(np.arange(start, start + rows, dtype=np.int64) * 1_000_000)
    return pa.table(columns)


if __name__ == "__main__":
    # On the older pyarrow data sets that the stock loader uses, and on the floor's tensors, which are read-only.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    main()
