"""What the eleventh day costs when ten are there, beside a build of all eleven at once.

    python benchmarks/nightly.py
    python benchmarks/nightly.py --impressions 100000 --rounds 1

Logs are those of the simulated world (``conf/data/demo.yaml``): 29 days for the histories, then eleven with samples. Each of these runs is
a ``spark-submit`` of its own, ``--rounds`` times in turn, and medians are compared:

- ``start``: Spark's start, a session that does nothing;
- ``whole``: all eleven days, vocabularies included;
- ``eleventh``: the last day, into a data set that has the ten before (which are built outside the measurement);
- ``nothing``: the same once more, when nothing is left to do.

Prints a line of JSON: the seconds of each, and ``eleventh_over_share``: (eleventh - start) / ((whole - start) / 11).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from samples import CONFIG, ROOT, measured, simulate, submit

DAYS = 11
LOGS_FROM, FIRST, TENTH, LAST = "2025-12-03", "2026-01-01", "2026-01-10", "2026-01-11"
SPLITS = {
    "train": {"first": FIRST, "last": "2026-01-09"},
    "validation": {"first": TENTH, "last": TENTH},
    "test": {"first": LAST, "last": LAST},
}
START = "from pipeline.io.session import spark_session; spark_session('nothing').stop()"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, make the logs, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=1_000_000, help="a day")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--data", type=Path, help="where logs are kept from one benchmark to the next; else they are made and removed"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        logs = world_logs(options.data or Path(scratch), options.impressions)
        print(
            json.dumps(
                {"benchmark": "nightly", "impressions_a_day": options.impressions, **compare(logs, Path(scratch), options.rounds)}
            )
        )
    return 0


def compare(logs: Path, scratch: Path, rounds: int) -> dict[str, float]:
    """Run them in turn."""
    empty = scratch / "start.py"
    empty.write_text(START, encoding="utf-8")
    ten, night = scratch / "ten", scratch / "night"
    build(logs, ten, FIRST, TENTH)
    times: dict[str, list[float]] = {"start": [], "whole": [], "eleventh": [], "nothing": []}
    for _ in range(rounds):
        times["start"].append(measured([*submit(), str(empty)])[0])
        times["whole"].append(build(logs, scratch / "whole", FIRST, LAST))
        shutil.copytree(ten, night)
        times["eleventh"].append(build(logs, night, FIRST, LAST))
        times["nothing"].append(build(logs, night, FIRST, LAST))
        if published(night) != published(scratch / "whole"):
            raise RuntimeError("the eleventh day taken alone is not that of the whole build")
        for folder in (night, scratch / "whole"):
            shutil.rmtree(folder)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    share = (seconds["whole"] - seconds["start"]) / DAYS
    over = (seconds["eleventh"] - seconds["start"]) / share
    return {name: round(value, 1) for name, value in seconds.items()} | {"eleventh_over_share": round(over, 2)}


def build(logs: Path, samples: Path, first: str, last: str) -> float:
    """The seconds of one run of ``build_samples``."""
    overrides = [f"logs={logs}", f"samples={samples}", "log.complete_to=2026-01-12"]
    overrides += [f"splits.{name}.{end}={day}" for name, split in SPLITS.items() for end, day in split.items()]
    job = ["jobs/build_samples.py", "--config", CONFIG, "--from", first, "--to", last]
    return measured([*submit(), *job, *overrides])[0]


def published(samples: Path) -> dict[str, str]:
    """The checksums of a data set's files."""
    contract = json.loads((samples / "contract.json").read_text(encoding="utf-8"))
    return {file["path"]: file["sha256"] for day in contract["days"] for file in day["files"]}


def world_logs(data: Path, impressions: int) -> Path:
    """The folder of the world's logs, made where it is not there yet."""
    logs = data / f"forty-days-{impressions}" / "logs"
    if not logs.exists():
        days = (dt.date.fromisoformat(LAST) - dt.date.fromisoformat(LOGS_FROM)).days + 1
        simulate(
            logs, f"simulate.impressions={impressions * days}", f"simulate.first_day={LOGS_FROM}", f"simulate.last_day={LAST}"
        )
    return logs


if __name__ == "__main__":
    os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf" / "spark"))
    sys.exit(main())
