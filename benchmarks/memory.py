"""How much memory does a training take, phase by phase, from its start to the registered model?

    python benchmarks/memory.py --mib 64
    python benchmarks/memory.py --mib 1024 --ranks 2 --placement sharded

Trains MIAN with an embedding table of so many MiB on a few made-up samples, as ``jobs/train.py`` does, registers it in a store of its own,
then loads the model from its folder and scores rows. Prints one JSON line: by phase the first rank's largest resident memory
(``resident_mib``) and what of it is no file and can only be swapped out (``private_mib``), less what the process held before
(``before_mib``).

Phases: ``start`` (reading settings, drawing the tables, all that is no other phase), ``training``, ``scoring`` (the held-out splits),
``gathering`` (of sharded tables), ``saving``, ``registering``, ``serving``. ``most_in`` is the phase with the most
private memory. A phase takes as many times the tables as its figure over ``table_mib``: training has the table, its two moments and the
best weights up to then.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    vocabulary_to_parquet,
)

WIDTH = 16
HISTORY = 10
ROWS = 2048
FIRST_DAY = dt.date(2026, 1, 1)
MIB = 1 << 20
FIELDS = (
    Field(group="candidate", name="item_id", vocabulary="item_id"),
    Field(group="candidate", name="price", transform=NumericTransform(kind="log", mean=0.0, std=1.0)),
    Field(group="behaviors", name="item_id", vocabulary="item_id"),
    Field(group="user", name="age", vocabulary="age"),
    Field(group="context", name="hour", vocabulary="hour"),
)
SPLITS = ("train", "validation", "test")


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description="How much memory does a training take, phase by phase?")
    parser.add_argument("--mib", type=int, default=64, help="of the embedding table")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--placement", choices=["replicated", "sharded"], default="replicated")
    parser.add_argument(
        "--vocabulary", choices=["hash", "table"], default="hash", help="whether the table's values are kept as text"
    )
    parser.add_argument("--folder", help="where samples, models and the store go; removed at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_samples(Path(folder), arguments.mib * MIB // (4 * WIDTH), arguments.ranks, arguments.vocabulary)
        config = {
            "samples": f"{folder}/samples",
            "output": f"{folder}/models",
            "model": {"name": "mian", "options": {"embedding_dim": WIDTH, "heads": 2, "mlp": [16], "global_dim": 16}},
            "tables": {"placement": arguments.placement},
            "batch_size": 64,
            "epochs": 1,
            "evaluations_per_epoch": 2,
            "threads": 1,
            "device": "cpu",
        }
        Path(folder, "train.json").write_text(json.dumps(config), encoding="utf-8")
        launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(arguments.ranks), "--gloo"]
        command = [*(launcher if arguments.ranks > 1 else []), sys.executable, str(Path(__file__).resolve()), "--rank", folder]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        launched = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if launched.returncode:
            sys.exit(f"{launched.stdout}{launched.stderr}")
        measured = json.loads(Path(folder, "measured.json").read_text())
    settings = {
        "table_mib": arguments.mib,
        "vocabulary": arguments.vocabulary,
        "ranks": arguments.ranks,
        "placement": arguments.placement,
    }
    print(json.dumps({"benchmark": "memory", **settings, **measured}))


def write_samples(folder: Path, ids: int, ranks: int, kind: str) -> None:
    """A day a split, a file a rank; item ids of all over the table."""
    rng = np.random.default_rng(0)
    days = []
    for number in range(len(SPLITS)):
        files = []
        for rank in range(ranks):
            path = folder / "samples" / f"day-{number}" / f"part-{rank}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(made_up(rng, ids), path)
            files.append(SampleFile(path=f"day-{number}/{path.name}", rows=ROWS, bytes=path.stat().st_size, sha256=""))
        day = FIRST_DAY + dt.timedelta(number)
        days.append(Day(day=day, rows=ROWS * ranks, positives=0, fingerprint="", files=tuple(files)))
    contract = Contract(
        name="made-up",
        fields=FIELDS,
        vocabularies=(
            Vocabulary(name="item_id", size=ids, kind="hash") if kind == "hash" else write_vocabulary(folder / "samples", ids),
            Vocabulary(name="age", size=12, kind="hash"),
            Vocabulary(name="hour", size=26, kind="hash"),
        ),
        vocabulary_fingerprint="",
        history=History(length=HISTORY, days=30),
        label=Label(kind="labeled"),
        splits={name: Split(first=day.day, last=day.day) for name, day in zip(SPLITS, days, strict=True)},
        config_fingerprint="",
        code_fingerprint="",
        days=tuple(days),
    )
    (folder / "samples" / "contract.json").write_text(contract.to_json(), encoding="utf-8")


def write_vocabulary(folder: Path, ids: int) -> Vocabulary:
    """Items of 15 letters."""
    path = folder / "item_id.parquet"
    with path.open("wb") as file:
        vocabulary_to_parquet(
            pa.array([f"item-{number:010}" for number in range(ids - 2)]), pa.array(np.ones(ids - 2, np.int64)), file
        )
    return Vocabulary(name="item_id", size=ids, path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def made_up(rng: np.random.Generator, ids: int) -> pa.Table:
    """A table of :data:`ROWS` samples whose clicks are chance."""
    behaviors = rng.integers(2, ids, (ROWS, HISTORY), dtype=np.int32)
    offsets = np.arange(0, ROWS * HISTORY + 1, HISTORY, dtype=np.int32)
    return pa.table(
        {
            "candidate_item_id": pa.array(rng.integers(2, ids, ROWS, dtype=np.int32)),
            "candidate_price": pa.array(rng.standard_normal(ROWS, dtype=np.float32)),
            "behavior_item_id": pa.ListArray.from_arrays(pa.array(offsets), pa.array(behaviors.reshape(-1))),
            "user_age": pa.array(rng.integers(2, 12, ROWS, dtype=np.int32)),
            "context_hour": pa.array(rng.integers(2, 26, ROWS, dtype=np.int32)),
            "behavior_length": pa.array(np.full(ROWS, HISTORY, np.int32)),
            "label": pa.array(rng.integers(0, 2, ROWS, dtype=np.int32)),
            "user_key": pa.array(rng.integers(0, 50, ROWS, dtype=np.int64)),
            "impression_id": pa.array([f"i{row}" for row in range(ROWS)]),
            "time": pa.array(np.arange(ROWS, dtype=np.int64)),
        }
    )


class Phases:
    """The largest memory of this process by phase, looked at a hundred times a second.

    Attributes:
        before: bytes held when it was made.
        peaks: by phase, the most held since, less ``before``; resident, and private.
    """

    def __init__(self) -> None:
        self.before = held()
        self.peaks: dict[str, tuple[int, int]] = {}
        self._phase = "start"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Phases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is within is of a phase."""
        around, self._phase = self._phase, name
        try:
            yield
        finally:
            self._look(name)
            self._phase = around

    def of(self, name: str, owner: object, attribute: str) -> None:
        """Each call of a function is of a phase."""
        call: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(call)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return call(*arguments, **options)

        setattr(owner, attribute, wrapped)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._look(self._phase)

    def _look(self, phase: str) -> None:
        now = tuple(used - before for used, before in zip(held(), self.before, strict=True))
        resident, private = (max(pair) for pair in zip(now, self.peaks.get(phase, (0, 0)), strict=True))
        self.peaks[phase] = resident, private


def held() -> tuple[int, int]:
    """Bytes of this process in memory: all, and those of no file."""
    lines = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(("VmRSS", "RssAnon"))
    )
    resident, private = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
    return resident, private


def train(folder: Path) -> None:
    """One rank: train, register and score; the first one leaves what there is to say."""
    import mian.tracking.model_keeper
    import mian.tracking.registry
    import mian.training.trainer
    from jobs import train as job
    from mian.contract import read_contract
    from mian.serving import input_example, load_servable
    from mian.training import Trainer

    with Phases() as phases:
        phases.of("training", Trainer, "run")
        phases.of("scoring", mian.training.trainer, "evaluate_split")
        phases.of("gathering", Trainer, "whole_model")
        phases.of("saving", mian.tracking.model_keeper, "save_servable")
        phases.of("registering", mian.tracking.registry, "log_servable")
        code = job.main(["--config", str(folder / "train.json")])
        if code:
            sys.exit(code)
        if os.environ.get("HOROVOD_RANK", "0") != "0":
            return
        with phases.phase("serving"):
            samples = str(folder / "samples")
            (model,) = (folder / "models").glob("mian-*")
            load_servable(model).predict_proba(input_example(read_contract(samples), samples))
    peaks = {name: peak for name, peak in phases.peaks.items() if name != "gathering" or peak[0]}
    measured = {
        "before_mib": round(phases.before[0] / MIB),
        "resident_mib": {name: round(resident / MIB) for name, (resident, _) in peaks.items()},
        "private_mib": {name: round(private / MIB) for name, (_, private) in peaks.items()},
        "most_in": max(peaks, key=lambda name: peaks[name][1]),
    }
    (folder / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        train(Path(sys.argv[2]))
    else:
        main()
