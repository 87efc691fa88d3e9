"""The job on real logs, in any order of builds, changes, kills and accidents: see tests/pipeline/dataset/test_publishing.py."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from jobs import build_samples
from mian.contract import Contract, read_contract
from pipeline.io.files import LocalFiles
from tests.support.builder import Killed
from tests.support.small_logs import CLICKS, DAYS, config, write_logs

#: More of them take longer and say more: MIAN_JOB_SEQUENCES=20.
SEQUENCES = int(os.environ.get("MIAN_JOB_SEQUENCES", "1"))
STEPS = 10
ALL = DAYS[:4]

pytestmark = [pytest.mark.spark]


class Shop:
    """A data set that the job builds, and what has to hold of it."""

    def __init__(self, folder: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.draw = random.Random(seed)
        self.patch = patch
        self.logs = folder / "logs"
        self.samples = folder / "samples"
        self.logs.mkdir()
        write_logs(self.logs, per_day=12)
        # the sixth day has items of its own; impressions never change theirs
        paths = (self.logs / "impressions").glob("*/*.parquet")
        rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
        self.items = {row["impression_id"]: row["item_id"] for row in rows}
        self.train_last, self.seed = 1, 0
        self.foreign: dict[Path, bytes] = {}
        self.damaged: set[str] = set()
        self.held: list[Contract] = []
        self.done: list[str] = []

    def job(self, *arguments: str) -> int:
        days = {"train": {"first": ALL[0], "last": ALL[self.train_last]}}
        days["test"] = {"first": ALL[self.train_last + 1], "last": ALL[self.train_last + 1]}
        settings = config(self.logs, splits=days, seed=self.seed, samples=str(self.samples), rows_per_pass=20)
        path = self.logs / "data.yaml"
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True, exclude_unset=True)))
        code = build_samples.main(["--config", str(path), *arguments])
        self.done[-1] += f" {' '.join(arguments)}: {code}"
        return code

    def step(self) -> None:
        actions: list[Callable[[], Any]] = [
            self.build, self.build, self.kill, self.kill, self.log, self.border, self.reseed, self.strangers, self.damage, self.lose,
            self.roll_back,
        ]  # fmt: skip
        action = self.draw.choice(actions)
        self.done.append(action.__name__)
        action()
        self.look()

    def _arguments(self) -> list[str]:
        first = self.draw.choice([0, 0, self.draw.randrange(len(ALL))])
        last = self.draw.choice([len(ALL) - 1, self.draw.randrange(first, len(ALL))])
        options = [option for option in ("--drop-days", "--extend-vocabularies", "--verify") if self.draw.random() < 0.2]
        return ["--from", str(ALL[first]), "--to", str(ALL[last]), *options]

    def build(self) -> None:
        self.job(*self._arguments())

    def kill(self) -> None:
        life = self.draw.randrange(60)

        def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
            def change(*arguments: Any) -> Any:
                nonlocal life
                life -= 1
                if life < 0:
                    raise Killed
                return method(*arguments)

            return change

        with self.patch.context() as patch:
            for name in ("write", "create", "replace", "remove"):
                patch.setattr(LocalFiles, name, mortal(getattr(LocalFiles, name)))
            try:
                self.job(*self._arguments())
            except Killed:
                self.done[-1] += " killed"
        for path in (self.samples / "_locks").glob("*.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"started": 1.0}))

    def log(self) -> None:
        path = self.logs / "clicks" / f"day={self.draw.choice(ALL)}" / "part-0.parquet"
        rows = pq.read_table(path, partitioning=None).to_pylist()
        pq.write_table(pa.Table.from_pylist(rows[1:] or rows, CLICKS), path)

    def border(self) -> None:
        self.train_last = self.draw.randrange(len(ALL) - 1)

    def reseed(self) -> None:
        self.seed = self.draw.randrange(2)

    def strangers(self) -> None:
        if (self.samples / "contract.json").exists():
            name = self.draw.choice(
                ["README.md", f"day={ALL[0]}/part-0.parquet", "archive.tmp/precious.csv", "_staging/notes/a.txt"]
            )
            path = self.samples / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not of this data set")
            self.foreign[path] = path.read_bytes()

    def damage(self) -> None:
        if (self.samples / "contract.json").exists():
            path = self.draw.choice(sorted(read_contract(str(self.samples)).named_files))
            (self.samples / path).unlink(missing_ok=True)
            self.damaged.add(path)

    def lose(self) -> None:
        (self.samples / "contract.json").unlink(missing_ok=True)

    def roll_back(self) -> None:
        self.job("--rollback")

    def look(self) -> None:
        assert all(path.read_bytes() == content for path, content in self.foreign.items())
        if not (self.samples / "contract.json").exists():
            return
        contract = read_contract(str(self.samples))
        if not self.held or self.held[-1] != contract:
            if self.held and "--drop-days" not in self.done[-1] and "--rollback" not in self.done[-1]:
                assert {day.day for day in self.held[-1].days} <= {day.day for day in contract.days}
            self.held.append(contract)
        for reader in self.held[-2:]:
            self.read(reader)

    def read(self, contract: Contract) -> None:
        """All that the contract names is there with its checksum, and every id is that of the log's item."""
        files = {file.path: file.sha256 for day in contract.days for file in day.named_files}
        files |= {str(v.path): str(v.sha256) for v in contract.vocabularies if v.kind == "table"}
        for path, sha256 in files.items():
            whole = (self.samples / path).exists() and hashlib.sha256((self.samples / path).read_bytes()).hexdigest() == sha256
            assert whole or path in self.damaged, f"{path} of revision {contract.publication.revision}"
        table = str(contract.vocabulary("item_id").path)
        if not (self.samples / table).exists():
            return
        values = pq.read_table(self.samples / table, partitioning=None)["value"].to_pylist()
        for file in (file for day in contract.days for file in day.files if (self.samples / file.path).exists()):
            rows = pq.read_table(self.samples / file.path, partitioning=None)
            for name, number in zip(rows["impression_id"].to_pylist(), rows["candidate_item_id"].to_pylist(), strict=True):
                assert number == 1 or values[number - 2] == self.items[name], f"{file.path}: {name}"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_any_sequence_of_jobs(spark: SparkSession, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparkSession, "stop", lambda session: None)
    shop = Shop(tmp_path, seed, monkeypatch)
    try:
        for _ in range(STEPS):
            shop.step()
        shop.done.append("at the end")
        assert shop.job("--from", str(ALL[0]), "--to", str(ALL[-1]), "--verify") == 0
        shop.damaged.clear()
        shop.read(read_contract(str(shop.samples)))
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *shop.done])) from error
