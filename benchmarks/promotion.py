"""How often does each gate of a promotion let equal models through, worse ones, and better ones?

    python benchmarks/promotion.py
    python benchmarks/promotion.py --impressions 100000 --models 4 --draws 50

In a simulated world, ``--models`` models are trained on the same four weeks, each with another seed, and score two weeks that none has
seen. ``--draws`` times a candidate, another one as champion, and seven days in a row are drawn, and the gates of ``conf/promotion.yaml``
judge. ``equal``: the share of these that each gate lets through. ``worse``: the same with noise in the candidate's logits, so much that its
logloss is higher by twice the margin on all days. ``point``: the share that a plain comparison of the two figures would let through.
``slices_any`` is the share of draws in which no slice refuses.

``more_days``: in ``--seeds`` pairs of trainings, the champion has three weeks and the candidate the fourth, too; how many are promoted by
``jobs/promote.py`` on the first week that neither has seen. ``more_days_later``: on the second one.
``broken_slice``: the labels of one device are shuffled within its rows of the training days; the gates that refuse the
model that is trained on these.

Prints one JSON line for each. Trainings are kept in ``--data`` and used again.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from samples import CONFIG, ROOT

from mian.contract import Contract, Day, read_contract
from mian.evaluation.offline import score_split
from mian.evaluation.scoring import Scores
from mian.metrics import logloss
from mian.promotion import gates
from mian.promotion.contender import Contender
from mian.promotion.decision import GateResult
from mian.promotion.settings import PromotionConfig
from mian.promotion.slices import slice_masks
from mian.serving import load_servable
from mian.tracking.model_source import RegisteredVersion

TRAINING = ROOT / "conf" / "train" / "mian.yaml"
SPLITS = {
    "train": {"first": "2026-01-01", "last": "2026-01-28"},
    "validation": {"first": "2026-01-29", "last": "2026-01-31"},
    "test": {"first": "2026-02-01", "last": "2026-02-14"},
}
SHORTER = dt.date(2026, 1, 21)
WINDOW = 7
DEVICE = "context_device"
LET_THROUGH = ("pass", "cannot tell")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the world, train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=300_000)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5, help="pairs of trainings with and without the fourth week")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--data", type=Path, help="where all is kept from one run to the next; else it is made and removed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        world = World((options.data or Path(scratch)).absolute(), options.epochs)
        world.build(options.impressions)
        folders = [world.train(f"seed {seed}", world.samples, seed) for seed in range(options.models)]
        for line in lines(world, folders, options):
            print(json.dumps({"impressions": options.impressions, **line}), flush=True)
    return 0


def lines(world: World, folders: list[Path], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One case after the other."""
    yield from drawn(world, folders, options.draws)
    yield from more_days(world, options.seeds)
    yield broken_slice(world)


class World:
    """Samples, trainings and a registry in one folder."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder = folder
        self.samples = folder / "samples"
        self.store = f"sqlite:///{folder}/mlflow.db"
        self._epochs = epochs

    def build(self, impressions: int) -> None:
        """Simulate the logs, build the samples and audit them, unless they are there."""
        if (self.folder / "audited").exists():
            return
        values = [f"logs={self.folder}/logs", f"samples={self.samples}", f"simulate.impressions={impressions}"]
        values += [f"splits.{name}.{end}={day}" for name, span in SPLITS.items() for end, day in span.items()]
        days = ["--from", SPLITS["train"]["first"], "--to", SPLITS["test"]["last"]]
        self._run("spark-submit", "jobs/simulate_logs.py", "--config", CONFIG, *values)
        self._run("spark-submit", "jobs/build_samples.py", "--config", CONFIG, *values, *days)
        self._run("spark-submit", "jobs/audit_samples.py", "--config", CONFIG, *values)
        (self.folder / "audited").touch()

    def train(self, name: str, samples: Path, seed: int) -> Path:
        """The folder of a model; it is registered too, in the order of the trainings."""
        output = self.folder / "models" / name
        if not (output / "done").exists():
            values = [f"samples={samples}", f"output={output}", f"seed={seed}", f"epochs={self._epochs}", "test_split=null"]
            self._run(
                sys.executable, "jobs/train.py", "--config", str(TRAINING), *values, f"tracking.uri={self.store}", "threads=1"
            )
            client = mlflow.MlflowClient(self.store)
            (output / "done").write_text(str(client.get_model_version_by_alias("mian", "newest").version))
        (folder,) = output.glob("mian-*")
        return folder

    def version(self, name: str) -> str:
        """The version of a model that :meth:`train` made."""
        return (self.folder / "models" / name / "done").read_text()

    def variant(self, name: str, contract: Contract) -> Path:
        """A data set of another contract over the same files, those that are written into it before excepted."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for path in self.samples.iterdir():
            if not path.name.startswith("contract.json") and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
        (folder / "contract.json").write_text(contract.to_json())
        return folder

    def promote(self, candidate: str, champion: str, samples: Path) -> dict[str, Any]:
        """The decision on a version beside another one on the newest days of some samples, by the job."""
        client = mlflow.MlflowClient(self.store)
        client.set_registered_model_alias("mian", "champion", self.version(champion))
        command = [
            sys.executable,
            "jobs/promote.py",
            "--model",
            "mian",
            "--config",
            "conf/promotion.yaml",
            f"samples={samples}",
        ]
        command += ["--candidate", self.version(candidate), "--dry-run", "--tracking-uri", self.store]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=self._environment, check=False)
        if done.returncode not in (0, 2):
            raise RuntimeError(done.stderr)
        lines = [line for line in done.stdout.splitlines() if "  fail  " in line]
        return {"promoted": done.returncode == 0, "refused_by": [line.split("  ")[0] for line in lines]}

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=self._environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of all models for the test days."""

    settings: PromotionConfig
    scores: list[Scores]
    masks: dict[str, npt.NDArray[np.bool_]]
    ends: npt.NDArray[np.int64]
    days: tuple[Day, ...]

    def rows(self, first: int) -> slice:
        """Those of :data:`WINDOW` days."""
        return slice(self.ends[first], self.ends[first + WINDOW])

    def judge(self, one: Scores, other: Scores, first: int) -> list[GateResult]:
        """What the gates on metrics say of some days."""
        rows = self.rows(first)
        scored, before = (Scores(each.labels[rows], each.probabilities[rows], each.users[rows]) for each in (one, other))
        masks = {name: mask[rows] for name, mask in self.masks.items()}
        return [
            gates.enough_rows(scored, self.days[first : first + WINDOW], self.settings.days),
            gates.informative(scored, self.settings.comparison.confidence),
            *gates.not_worse(scored, before, self.settings.comparison),
            gates.calibration(scored, self.settings.calibration),
            *gates.slices(scored, before, masks, self.settings.slices),
        ]


def drawn(world: World, folders: list[Path], draws: int) -> list[dict[str, Any]]:
    """Equal models, and a worse candidate, judged on drawn days."""
    values = yaml.safe_load((ROOT / "conf" / "promotion.yaml").read_text(encoding="utf-8"))
    settings = PromotionConfig.model_validate(values | {"samples": str(world.samples)})
    contract = read_contract(str(world.samples))
    contenders = [Contender(RegisteredVersion("mian", str(n)), folder, load_servable(folder)) for n, folder in enumerate(folders)]
    scores = [score_split(contender.servable, contract, str(world.samples), "test") for contender in contenders]
    days = contract.split("test")
    ends = np.cumsum([0, *(day.rows for day in days)])
    masks = slice_masks(contract, str(world.samples), "test", contenders[:2], settings.slices)
    scored = Scored(settings, scores, masks, ends, days)
    noisy = [worse(each, 2 * settings.comparison.logloss_margin) for each in scores]
    return [
        {"benchmark": "promotion", "case": case, "draws": draws, **shares(scored, candidates, draws)}
        for case, candidates in (("equal", scores), ("worse", noisy))
    ]


def shares(scored: Scored, candidates: list[Scores], draws: int) -> dict[str, float]:
    """The share of the draws that each gate lets through, and all of them together."""
    rng = np.random.default_rng(0)
    passed: dict[str, list[bool]] = defaultdict(list)
    for _ in range(draws):
        one, other = rng.choice(len(candidates), 2, replace=False)
        first = int(rng.integers(0, len(scored.days) - WINDOW + 1))
        results = scored.judge(candidates[one], scored.scores[other], first)
        for result in results:
            if not result.gate.startswith("slice "):
                passed[result.gate].append(result.state in LET_THROUGH)
        passed["slices_any"].append(all(r.state in LET_THROUGH for r in results if r.gate.startswith("slice ")))
        passed["all"].append(all(result.state in LET_THROUGH for result in results))
        loss = next(result for result in results if result.gate == "logloss")
        passed["point"].append(float(loss.figures["worse_by"] or 0.0) < 0)
    return {name: round(float(np.mean(each)), 4) for name, each in passed.items()}


def worse(scored: Scores, by: float) -> Scores:
    """The same scores with noise in their logits, so much that logloss is higher by this."""
    noise = np.random.default_rng(1).normal(size=len(scored.labels))
    p = scored.probabilities.astype(np.float64)
    logits, before = np.log(p / (1 - p)), logloss(scored.labels, p)
    low, high = 0.0, 3.0
    for _ in range(30):
        middle = (low + high) / 2
        found = 1 / (1 + np.exp(-(logits + middle * noise)))
        low, high = (middle, high) if logloss(scored.labels, found) - before < by else (low, middle)
    return scored._replace(probabilities=found.astype(np.float32))


def more_days(world: World, seeds: int) -> Iterator[dict[str, Any]]:
    """How many models with one more week are promoted, on the week after the training and on the one after that."""
    contract = read_contract(str(world.samples))
    short = contract.splits["train"].model_copy(update={"last": SHORTER})
    samples = world.variant("three weeks", contract.model_copy(update={"splits": {**contract.splits, "train": short}}))
    for seed in range(seeds):
        world.train(f"three weeks {seed}", samples, 100 + seed)
        world.train(f"seed {seed}", world.samples, seed)
    test = contract.splits["test"]
    for case, last in (("more_days", test.first + dt.timedelta(days=WINDOW - 1)), ("more_days_later", test.last)):
        ended = contract.model_copy(update={"days": tuple(day for day in contract.days if day.day <= last)})
        until = world.variant(f"until {last}", ended)
        decisions = [world.promote(f"seed {seed}", f"three weeks {seed}", until) for seed in range(seeds)]
        refusals = [decision["refused_by"] for decision in decisions]
        promoted = sum(decision["promoted"] for decision in decisions)
        yield {"benchmark": "promotion", "case": case, "seeds": seeds, "promoted": promoted, "refused_by": refusals}


def broken_slice(world: World) -> dict[str, Any]:
    """What refuses a model whose labels of one device were shuffled in training."""
    contract = read_contract(str(world.samples))
    folder, rng = world.folder / "shuffled", np.random.default_rng(0)
    train = {day.day for day in contract.split("train")}
    value, days = 0, []
    for day in contract.days:
        files = []
        for file in day.files:
            table = pq.read_table(world.samples / file.path, partitioning=None)
            device = table[DEVICE].to_numpy()
            value = value or int(np.argmax(np.bincount(device)))
            if day.day in train:
                labels, rows = table["label"].to_numpy().copy(), np.flatnonzero(device == value)
                labels[rows] = rng.permutation(labels[rows])
                table = table.set_column(table.column_names.index("label"), "label", pa.array(labels, pa.int32()))
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, compression="zstd", row_group_size=table.num_rows)
            files.append(file.model_copy(update={"bytes": path.stat().st_size, "sha256": _sha256(path)}))
        days.append(day.model_copy(update={"files": tuple(files)}))
        for other in {file.path for file in day.named_files} - {file.path for file in day.files}:
            if not (folder / other).exists():
                (folder / other).symlink_to(world.samples / other)
    samples = world.variant("shuffled", contract.model_copy(update={"days": tuple(days)}))
    world.train("shuffled", samples, 0)
    return {
        "benchmark": "promotion",
        "case": "broken_slice",
        "device_id": value,
        **world.promote("shuffled", "seed 1", world.samples),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
