"""How fast does a Spark job score candidates, beside two plain Python processes?

    python benchmarks/scoring.py --impressions 300000 --moments 2000 --rounds 5

In a simulated world, a model of ``conf/train/mian.yaml`` with drawn weights scores two logs: ``user``, moments of users with 200 candidates
each, whose user's part is computed once; and ``rows``, the impressions of all days as whole rows. Each round runs both sides in turn.

- Spark: the scoring stage of ``jobs/score.py`` in a local session of two cores: candidates that are joined and packed are distributed,
  unpacked, encoded, scored, and made into the bytes of Parquet files, which nobody stores. The join, the start of Spark and the loading
  of the model lie before.
- Plain: two processes of one thread each, whose half of the same candidates lies encoded in their memory, score them in a loop.

Prints one JSON line for each mode: candidates a second of both sides (medians), and ``vs_plain``, the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import yaml
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from jobs.configuration import load_config
from mian.contract import read_contract
from mian.models import build
from mian.serving import read_vocabularies, save_servable
from mian.serving.batch_scorer import load_batch_scorer
from mian.serving.servable import servable_digest, servable_files
from pipeline.config import DataConfig
from pipeline.io.session import spark_session
from pipeline.join.outputs import SAMPLES
from pipeline.logs.candidates import CandidateLogs, candidate_days, candidates_config
from pipeline.scoring.moments import SMALLEST_GROUP, score_moments
from pipeline.scoring.scorer import ScoringModel
from pipeline.scoring.stage import file_tasks, give_to_workers, packed_candidates
from pipeline.scoring.worker import EncodedCandidates, ScorePlan, WorkerModel, encoded, load_model, score_files

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "conf" / "data" / "demo.yaml"
TRAINING = ROOT / "conf" / "train" / "mian.yaml"
CANDIDATES = 200
CORES = 2
FIRST_DAY = "day=2026-01-01"
PAGE_DAYS = 4
#: Smallest groups of candidates whose user's part is computed once; 0: whole rows.
MODES = {"user": SMALLEST_GROUP, "rows": 0}


def main() -> None:
    """Simulate, build, and print a JSON line for each mode."""
    parser = argparse.ArgumentParser(description="How fast does a Spark job score candidates, beside two plain Python processes?")
    parser.add_argument("--impressions", type=int, default=300_000, help="of the simulated world")
    parser.add_argument("--moments", type=int, default=2000, help=f"of mode user; each has {CANDIDATES} candidates")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, model = prepared(folder, arguments.impressions)
        write_pages(folder, arguments.moments)
        settings = f"--conf spark.master=local[{CORES}] --driver-memory 3g --conf spark.ui.enabled=false pyspark-shell"
        os.environ["PYSPARK_SUBMIT_ARGS"] = settings
        spark = spark_session("scoring benchmark", {"spark.executorEnv.OMP_NUM_THREADS": "1"})
        logs = {"user": folder / "pages", "rows": folder / "shown"}
        for mode, smallest_group in MODES.items():
            found = measured(spark, config, model, logs[mode], smallest_group, arguments.rounds)
            print(json.dumps({"benchmark": "scoring", "mode": mode, **found}), flush=True)
        spark.stop()


def prepared(folder: Path, impressions: int) -> tuple[DataConfig, ScoringModel]:
    """A simulated world with samples, and a model of them."""
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    data |= {"logs": str(folder / "logs"), "samples": str(folder / "samples")}
    data["simulate"]["impressions"] = impressions
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    for job in ("simulate_logs", "build_samples"):
        command = ["spark-submit", str(ROOT / "jobs" / f"{job}.py"), "--config", str(path)]
        subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"PYTHONPATH": str(ROOT)})
    config, contract = load_config(DataConfig, str(path)), read_contract(data["samples"])
    model = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))["model"]
    torch.manual_seed(0)
    save_servable(
        folder / "model",
        build(model["name"], contract, model["options"]),
        model["name"],
        model["options"],
        contract,
        read_vocabularies(contract, data["samples"]),
    )
    place = str(folder / "model")
    return config, ScoringModel(place, servable_files(place), "drawn", servable_digest(place), load_batch_scorer)


def write_pages(folder: Path, moments: int) -> None:
    """``shown/``: the impressions of the samples' days. ``pages/``: some moments of the last days with :data:`CANDIDATES` items each."""
    rng = np.random.default_rng(0)
    items = pq.read_table(folder / "logs" / "items", columns=["item_id"])["item_id"].combine_chunks()
    days = sorted(path.name for path in (folder / "logs" / "impressions").glob("day=*") if path.name >= FIRST_DAY)
    for number, day in enumerate(days):
        shown = pa.concat_tables(
            pq.read_table(path, partitioning=None) for path in sorted((folder / "logs" / "impressions" / day).glob("*.parquet"))
        )
        (folder / "shown" / day).mkdir(parents=True)
        pq.write_table(shown, folder / "shown" / day / "part-0.parquet")
        if number < len(days) - PAGE_DAYS:
            continue
        times = shown.group_by(["user_id", "event_time"]).aggregate([("impression_id", "min")])
        firsts = pc.index_in(times["impression_id_min"], shown["impression_id"])
        chosen = shown.take(firsts.take(pa.array(rng.permutation(len(firsts))[: moments // PAGE_DAYS])))
        pages = chosen.take(pa.array(np.repeat(np.arange(len(chosen)), CANDIDATES)))
        numbers = np.tile(np.arange(CANDIDATES), len(chosen))
        ids = pc.binary_join_element_wise(pages["impression_id"].cast(pa.string()), pa.array(map(str, numbers)), "-")
        drawn = items.take(pa.array(rng.integers(0, len(items), len(pages))))
        for name, values in (("impression_id", ids), ("item_id", drawn), ("position", pa.array(numbers + 1))):
            place = pages.schema.get_field_index(name)
            kind = pa.string() if name == "impression_id" else pages.schema.field(place).type
            pages = pages.set_column(place, name, values.cast(kind))
        (folder / "pages" / day).mkdir(parents=True)
        pq.write_table(pages, folder / "pages" / day / "part-0.parquet")


def measured(
    spark: SparkSession, config: DataConfig, model: ScoringModel, log: Path, smallest_group: int, rounds: int
) -> dict[str, Any]:
    """Both sides in turn, so many times."""
    candidates = candidates_config(config, str(log))
    days = candidate_days(spark, candidates)
    events = CandidateLogs(spark, config, candidates, days[0]).read(days[0], days[-1])
    blobs = packed_candidates(spark, candidates, events, days).where(f"kind = '{SAMPLES}'").persist(StorageLevel.DISK_ONLY)
    plan = ScorePlan(give_to_workers(spark, model), model.factory, model.version, 0, smallest_group, {})
    parts = encoded_files(blobs, load_model(model.folder, model.factory))
    count = sum(len(part.moments) for part in parts)
    scored = score_files(blobs, plan, file_tasks(candidates, events, days, CORES))
    stage(scored)  # workers start, and load the model
    plain = Plain(model, parts, smallest_group)
    try:
        times: dict[str, list[float]] = {"spark": [], "plain": []}
        sides: dict[str, Callable[[], float]] = {"spark": lambda: stage(scored), "plain": plain.run}
        plain.run()
        for number in range(rounds):
            for side in list(sides)[:: 1 if number % 2 else -1]:
                times[side].append(sides[side]())
    finally:
        plain.stop()
        blobs.unpersist()
    ratios = [one / other for one, other in zip(times["plain"], times["spark"], strict=True)]
    return {
        "candidates": count,
        "files": len(parts),
        "rounds": rounds,
        "spark_per_s": round(count / statistics.median(times["spark"])),
        "plain_per_s": round(count / statistics.median(times["plain"])),
        "vs_plain": round(statistics.median(ratios), 3),
        "vs_plain_low": round(min(ratios), 3),
        "vs_plain_high": round(max(ratios), 3),
    }


def stage(scored: DataFrame) -> float:
    """Seconds of the scoring stage; what it makes goes nowhere."""
    start = time.monotonic()
    scored.write.format("noop").mode("overwrite").save()
    return time.monotonic() - start


def encoded_files(blobs: DataFrame, model: WorkerModel) -> list[EncodedCandidates]:
    """The candidates of each file, encoded as the workers do it."""
    payloads: dict[tuple[dt.date, int], list[pa.Buffer]] = defaultdict(list)
    for row in blobs.select("day", "file", "payload").toLocalIterator():
        payloads[row["day"], row["file"]].append(pa.py_buffer(bytes(row["payload"])))
    return [encoded(payloads[key], model) for key in sorted(payloads)]


class Plain:
    """Processes that score their share of the files whenever they are told to.

    Args:
        model: the model.
        parts: the files.
        smallest_group: see :func:`pipeline.scoring.moments.score_moments`.
    """

    def __init__(self, model: ScoringModel, parts: list[EncodedCandidates], smallest_group: int) -> None:
        context = multiprocessing.get_context("spawn")
        shares: list[list[EncodedCandidates]] = [[] for _ in range(CORES)]
        for part in sorted(parts, key=lambda part: -len(part.moments)):
            min(shares, key=lambda share: sum(len(other.moments) for other in share)).append(part)
        self._pipes = []
        self._processes = []
        for share in shares:
            here, there = context.Pipe()
            arguments = (there, model.folder, [(part.columns, part.moments) for part in share], smallest_group)
            process = context.Process(target=score_when_told, args=arguments, daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self) -> float:
        """Seconds until all have scored their share."""
        start = time.monotonic()
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()
        return time.monotonic() - start

    def stop(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()


def score_when_told(pipe: Connection, folder: str, share: list[tuple[Any, Any]], smallest_group: int) -> None:
    """Score encoded candidates in this process, again for each True that comes."""
    scorer, contract = load_batch_scorer(folder), read_contract(folder)
    while pipe.recv():
        for columns, moments in share:
            score_moments(scorer, contract, columns, moments, smallest_group)
        pipe.send(None)


if __name__ == "__main__":
    main()
