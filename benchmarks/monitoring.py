"""Does monitoring keep quiet on quiet days, and does it see what is broken?

    python benchmarks/monitoring.py
    python benchmarks/monitoring.py --impressions 150000 --data FOLDER

A simulated world of 49 days of samples: 28 of training, 3 of validation, 7 reference days, and 11 days that are looked at. A second copy
of its logs is broken on three of these: on the fourth the column ``device`` is null; on the eighth half of the clicks are missing; on the
last 30 % of the impressions are of items that nobody knows. ``jobs/monitor.py`` looks at both.

``as simulated`` and ``broken``: alarms by day, and the causes. ``sliding``: every run of seven unseen days as reference and every quiet day
after it, with each of ``--models`` models: the share of days with an alarm, beside the rate that is asked for.

Prints one JSON line for each. Logs, samples and trainings are kept in ``--data`` and used again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from samples import CONFIG, ROOT

from mian.contract import read_contract
from mian.monitoring.compare import Comparer
from mian.monitoring.day_facts import DayReader
from mian.monitoring.run import OwnScores
from mian.monitoring.settings import MonitoringConfig
from mian.serving import load_servable

FIRST = dt.date(2026, 1, 1)
TRAIN, VALIDATION, REFERENCE, LOOKED_AT = 28, 3, 7, 11
NO_DEVICE, FEW_CLICKS, NEW_ITEMS = (REFERENCE + place for place in (3, 7, 10))
"""The broken days, counted from the first that the model had not seen."""
CLICKS_KEPT, UNKNOWN = 0.5, 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the world, train, monitor, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--models", type=int, default=3, help="trainings that differ in their seed")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--data", type=Path, help="where all is kept from one run to the next; else it is made and removed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.data or Path(scratch)).absolute()
        build(folder, options.impressions, options.seed)
        models = [train(folder, seed, options.epochs) for seed in range(options.models)]
        world = {"impressions": options.impressions, "seed": options.seed}
        for name in ("as simulated", "broken"):
            print(json.dumps({**world, **monitored(folder, name, models[0])}), flush=True)
        print(json.dumps({**world, **sliding(folder, models)}), flush=True)
    return 0


def day(place: int) -> dt.date:
    """A day of samples, counted from 0."""
    return FIRST + dt.timedelta(days=place)


def unseen(place: int) -> dt.date:
    """A day that no model has seen, counted from 0."""
    return day(TRAIN + VALIDATION + place)


def build(folder: Path, impressions: int, seed: int) -> None:
    """Simulate the logs, break a copy of them, and build samples of both, unless they are there."""
    last = unseen(REFERENCE + LOOKED_AT - 1)
    splits = {
        "train": (day(0), day(TRAIN - 1)),
        "validation": (day(TRAIN), day(TRAIN + VALIDATION - 1)),
        "test": (unseen(0), last),
    }
    values = [
        f"splits.{name}.{end}={span}" for name, ends in splits.items() for end, span in zip(("first", "last"), ends, strict=True)
    ]
    # The simulator's last day ends early; it is not looked at.
    values += [f"simulate.impressions={impressions}", f"simulate.seed={seed}", f"simulate.last_day={last + dt.timedelta(days=1)}"]
    values += [f"log.complete_to={last + dt.timedelta(days=2)}"]
    logs = folder / "as simulated" / "logs"
    if not (folder / "simulated").exists():
        run("spark-submit", "jobs/simulate_logs.py", "--config", CONFIG, *values, f"logs={logs}", "--overwrite")
        (folder / "simulated").touch()
    if not (folder / "broken in part").exists():
        shutil.rmtree(folder / "broken", ignore_errors=True)
        shutil.copytree(logs, folder / "broken" / "logs")
        break_logs(folder / "broken" / "logs")
        (folder / "broken in part").touch()
    for name in ("as simulated", "broken"):
        span = ["--from", str(day(0)), "--to", str(last)]
        places = [f"logs={folder / name / 'logs'}", f"samples={folder / name / 'samples'}"]
        run("spark-submit", "jobs/build_samples.py", "--config", CONFIG, *values, *places, *span)


def break_logs(logs: Path) -> None:
    """Change the log files of three days."""
    rng = np.random.default_rng(0)

    def no_device(table: pa.Table) -> pa.Table:
        return replaced(table, "device", pa.nulls(table.num_rows, table["device"].type))

    def few_clicks(table: pa.Table) -> pa.Table:
        return table.filter(pa.array(rng.random(table.num_rows) < CLICKS_KEPT))

    def new_items(table: pa.Table) -> pa.Table:
        names = pc.binary_join_element_wise("new", table["item_id"], "-")
        is_new = pa.array(rng.random(table.num_rows) < UNKNOWN)
        return replaced(table, "item_id", pc.if_else(is_new, names, table["item_id"]))

    for log, place, change in (
        ("impressions", NO_DEVICE, no_device),
        ("clicks", FEW_CLICKS, few_clicks),
        ("impressions", NEW_ITEMS, new_items),
    ):
        for file in (logs / log / f"day={unseen(place)}").glob("*.parquet"):
            table = pq.ParquetFile(file).read()
            pq.write_table(change(table), file)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with another column in the place of one."""
    return table.set_column(table.column_names.index(name), name, values)


def train(folder: Path, seed: int, epochs: int) -> Path:
    """The folder of a model."""
    output = folder / "models" / f"seed {seed}"
    if not (output / "done").exists():
        values = [f"samples={folder / 'as simulated' / 'samples'}", f"output={output}", f"seed={seed}", f"epochs={epochs}"]
        values += ["test_split=null", f"tracking.uri=sqlite:///{folder}/mlflow.db", "threads=1"]
        run(sys.executable, "jobs/train.py", "--config", "conf/train/mian.yaml", *values)
        (output / "done").touch()
    (kept,) = output.glob("mian-*")
    return kept


def monitored(folder: Path, name: str, model: Path) -> dict[str, Any]:
    """What the job says of some samples."""
    table = folder / f"{name}.json"
    command = [sys.executable, "jobs/monitor.py", "--model", str(model), "--config", "conf/monitoring.yaml"]
    command += [f"samples={folder / name / 'samples'}", "--json", str(table), "--report", str(folder / f"{name}.html")]
    code = run(*command, good=(0, 2))
    days = json.loads(table.read_text(encoding="utf-8"))["days"]
    alarms = {
        each["day"]: [measured["name"] for measured in each["measures"] if measured["state"] == "alarm"]
        for each in days
        if not each["is_reference"]
    }
    broken = {str(unseen(place)): what for place, what in ((NO_DEVICE, "device"), (FEW_CLICKS, "clicks"), (NEW_ITEMS, "items"))}
    found = {broken.get(key, key): names for key, names in alarms.items() if names}
    quiet = [key for key in alarms if name == "as simulated" or key not in broken]
    return {
        "benchmark": "monitoring",
        "case": name,
        "exit_code": code,
        "quiet_days": len(quiet),
        "alarms_on_quiet_days": sum(bool(alarms[key]) for key in quiet),
        "alarms": found,
    }


def sliding(folder: Path, models: Sequence[Path]) -> dict[str, Any]:
    """How many quiet days raise an alarm, for every run of reference days."""
    samples = str(folder / "as simulated" / "samples")
    settings, contract = MonitoringConfig(samples=samples), read_contract(samples)
    days = [each for each in sorted(contract.days, key=lambda each: each.day) if each.day >= unseen(0)]
    false, looked_at = 0, 0
    for model in models:
        servable = load_servable(model)
        reader = DayReader(contract, samples, servable.contract, settings.calendar_fields)
        scores = OwnScores(servable, "", contract, settings)
        facts = [reader.read(each, *scores.scores(each)) for each in days]
        for first in range(len(facts) - settings.reference_days):
            end = first + settings.reference_days
            comparer = Comparer(facts[first:end], reader.fields, settings.false_alarm_rate)
            found = [bool(comparer.report(each, "").alarms) for each in facts[end:]]
            false, looked_at = false + sum(found), looked_at + len(found)
    return {
        "benchmark": "monitoring",
        "case": "sliding",
        "models": len(models),
        "quiet_days": looked_at,
        "alarms_on_quiet_days": false,
        "share": round(false / looked_at, 4),
        "asked_for": settings.false_alarm_rate,
    }


def run(*command: str, good: tuple[int, ...] = (0,)) -> int:
    """Run a job; its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in good:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
