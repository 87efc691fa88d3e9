"""How long ``jobs/build_samples.py`` takes, beside a DuckDB program that does the same work on the same files and cores.

    python benchmarks/samples.py
    python benchmarks/samples.py --impressions 1000000 --worlds even --rounds 1

Logs are those of the simulated world (``conf/data/demo.yaml``), of several sizes; in the world ``hot`` a tenth of all impressions, with
their clicks, is given to one user. Both programs read all logs, join, find histories, make vocabularies, encode, write files of 50,000
rows in a drawn order and take their checksums; that their rows and positives agree is checked. Spark's also looks for rows that break a
rule, counts statistics and keeps raw examples, and its start is in its time. Both run in turn on all worlds of a size, ``--rounds``
times, and the medians are compared. Memory is the sum over all processes of a program of what each has resident, shared pages shared out
(PSS), at its peak.

A line of JSON a case: ``benchmark``, ``impressions``, ``world``, ``seconds``, ``vs_duckdb`` (time over time), ``peak_gib``,
``duckdb_seconds``, ``duckdb_peak_gib``; and a last one with ``growth_exponent`` (of Spark's time from the smallest to the largest even
world) and ``hot_over_even`` (time over time at the largest size).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "conf/data/demo.yaml"
CORES = 2
#: Where it is not given, the laptop of a user: the heap of Spark's driver, which is all of Spark there.
HEAP = "2g"
HOT_SHARE = 10


@dataclass(frozen=True)
class Run:
    """One run of one program."""

    seconds: float
    peak_gib: float
    rows: int
    positives: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, make the logs, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--worlds", nargs="+", choices=["even", "hot"], default=["even", "hot"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--data", type=Path, help="where logs are kept from one benchmark to the next; else they are made and removed"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch)
        seconds: dict[tuple[int, str], float] = {}
        for impressions in sorted(options.impressions):
            logs = {world: world_logs(data, impressions, world) for world in options.worlds}
            for world, line in compare(logs, Path(scratch), options.rounds).items():
                seconds[impressions, world] = line["seconds"]
                print(json.dumps({"benchmark": "samples", "impressions": impressions, "world": world, **line}), flush=True)
    print(json.dumps({"benchmark": "samples", **summary(seconds)}))
    return 0


def summary(seconds: dict[tuple[int, str], float]) -> dict[str, float | None]:
    """How time grows with the log, and with one heavy user; None where too few cases ran."""
    even = sorted((n, t) for (n, world), t in seconds.items() if world == "even")
    growth = hot = None
    if len(even) > 1:
        (small, first), (large, last) = even[0], even[-1]
        growth = round(math.log(last / first) / math.log(large / small), 3)
    largest = max(n for n, _ in seconds)
    if {(largest, "even"), (largest, "hot")} <= set(seconds):
        hot = round(seconds[largest, "hot"] / seconds[largest, "even"], 3)
    return {"growth_exponent": growth, "hot_over_even": hot}


def compare(logs: Mapping[str, Path], scratch: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Run both programs on each world in turn, so that a machine that gets slower or faster does so for all of them."""
    ours: dict[str, list[Run]] = {world: [] for world in logs}
    theirs: dict[str, list[Run]] = {world: [] for world in logs}
    for _ in range(rounds):
        for world, folder in logs.items():
            theirs[world].append(duckdb_run(folder, scratch / "duckdb"))
            ours[world].append(spark_run(folder, scratch / "spark"))
            found, expected = ours[world][-1], theirs[world][-1]
            if (found.rows, found.positives) != (expected.rows, expected.positives):
                raise RuntimeError(f"{folder}: the two programs do not agree: {found} and {expected}")
    return {world: _line(ours[world], theirs[world]) for world in logs}


def _line(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, float]:
    seconds, duckdb_seconds = (statistics.median(run.seconds for run in runs) for runs in (ours, theirs))
    return {
        "seconds": round(seconds, 1),
        "vs_duckdb": round(seconds / duckdb_seconds, 2),
        "peak_gib": round(max(run.peak_gib for run in ours), 2),
        "duckdb_seconds": round(duckdb_seconds, 1),
        "duckdb_peak_gib": round(max(run.peak_gib for run in theirs), 2),
    }


def spark_run(logs: Path, output: Path) -> Run:
    """Build the samples with ``spark-submit``, from nothing."""
    shutil.rmtree(output, ignore_errors=True)
    job = ["jobs/build_samples.py", "--config", CONFIG, f"logs={logs}", f"samples={output}"]
    seconds, peak, _ = measured([*submit(), *job])
    contract = json.loads((output / "contract.json").read_text(encoding="utf-8"))
    rows, positives = (sum(day[key] for day in contract["days"]) for key in ("rows", "positives"))
    shutil.rmtree(output)
    return Run(seconds, peak, rows, positives)


def submit() -> list[str]:
    """How Spark is started."""
    return ["spark-submit", "--master", f"local[{CORES}]", "--driver-memory", HEAP]


def simulate(logs: Path, *overrides: str) -> None:
    """Make the logs of a simulated world."""
    job = ["jobs/simulate_logs.py", "--config", CONFIG, *overrides, f"logs={logs}"]
    subprocess.run([*submit(), *job], cwd=ROOT, check=True, capture_output=True)


def duckdb_run(logs: Path, output: Path) -> Run:
    """Build the samples with DuckDB, from nothing."""
    program = str(ROOT / "benchmarks" / "duckdb_samples.py")
    seconds, peak, text = measured(
        [sys.executable, program, "--logs", str(logs), "--output", str(output), "--threads", str(CORES), "--memory", "3GB"]
    )
    facts = json.loads(text.strip().splitlines()[-1])
    shutil.rmtree(output)
    return Run(seconds, peak, facts["rows"], facts["positives"])


def measured(command: Sequence[str]) -> tuple[float, float, str]:
    """Run a program: its seconds, the greatest memory of all its processes in GiB, what it printed."""
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        peak = [0.0]
        watch = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak), daemon=True)
        watch.start()
        output, errors = process.communicate()
        seconds = time.monotonic() - start
        watch.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors[-3000:]}")
    return seconds, peak[0] / 2**30, output


def _watch(process: psutil.Process, peak: list[float]) -> None:
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        total = 0
        try:
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], total)
        time.sleep(0.5)


def world_logs(data: Path, impressions: int, world: str) -> Path:
    """The folder of a world's logs, made where it is not there yet."""
    even = data / f"even-{impressions}" / "logs"
    if not even.exists():
        simulate(even, f"simulate.impressions={impressions}")
    if world == "even":
        return even
    hot = data / f"hot-{impressions}" / "logs"
    if not hot.exists():
        _heat(even, hot.with_suffix(".tmp"))
        hot.with_suffix(".tmp").rename(hot)
    return hot


def _heat(even: Path, hot: Path) -> None:
    """Give a tenth of the impressions, and their clicks, to one user, whose profiles stay what they are."""
    for name in ("users", "items"):
        shutil.copytree(even / name, hot / name, dirs_exist_ok=True)
    with duckdb.connect() as database:
        database.execute(f"SET threads = {CORES}")
        first = next((even / "users").rglob("*.parquet"))
        user = database.execute(f"SELECT min(user_id) FROM read_parquet('{first}')").fetchall()[0][0]
        for name in ("impressions", "clicks"):
            for path in sorted((even / name).rglob("*.parquet")):
                target = hot / path.relative_to(even)
                target.parent.mkdir(parents=True, exist_ok=True)
                database.execute(
                    f"COPY (SELECT * REPLACE (CASE WHEN hash(impression_id) % {HOT_SHARE} = 0 THEN '{user}' ELSE user_id END AS user_id) "
                    f"FROM read_parquet('{path}', hive_partitioning = false)) TO '{target}' (FORMAT parquet)"
                )


if __name__ == "__main__":
    os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf" / "spark"))
    sys.exit(main())
