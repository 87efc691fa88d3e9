"""Whatever is done to a data set, in whatever order: what is published is whole, and nothing of anybody else's is lost."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from mian.contract import Contract, ContractError, read_contract
from pipeline.config import DataConfig
from pipeline.dataset.folder import DatasetFolder
from pipeline.dataset.lock import DatasetLock, DatasetLockedError
from pipeline.dataset.run import BuildReport, run_build
from pipeline.dataset.start import find_start, refuse_loss
from pipeline.days import days_between
from pipeline.io.files import LocalFiles
from tests.support.builder import Killed, Logs, MortalFiles, PlainBuilder
from tests.support.small_logs import DAYS, config

#: More of them take longer and say more: MIAN_SEQUENCES=200.
SEQUENCES = int(os.environ.get("MIAN_SEQUENCES", "40"))
STEPS = 10
ALL = days_between(DAYS[0], DAYS[0] + dt.timedelta(days=7))


def settings(folder: Path, train_last: int = 3, seed: int = 0, **changes: Any) -> DataConfig:
    splits = {
        "train": {"first": ALL[0], "last": ALL[train_last]},
        "test": {"first": ALL[train_last + 1], "last": ALL[train_last + 1]},
    }
    return config(folder, splits=splits, seed=seed, **changes)


class World:
    """A data set, its logs, those who read it, and who else has files in its folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.folder = folder
        self.samples = folder / "samples"
        self.logs: Logs = {day: self._items() for day in ALL}
        self.train_last, self.seed = 3, 0
        self.foreign: dict[Path, bytes] = {}
        self.damaged: dict[str, bytes | None] = {}
        self.held: list[Contract] = []
        self.done: list[str] = []

    def _items(self) -> list[str]:
        return [f"i{self.draw.randrange(12)}" for _ in range(5)]

    def config(self) -> DataConfig:
        return settings(self.folder, self.train_last, self.seed)

    def build(self, first: int = 0, last: int = len(ALL) - 1, files: LocalFiles | None = None, **options: bool) -> BuildReport:
        files = files if files is not None else LocalFiles()
        made = self.config()
        folder = DatasetFolder(files, made.samples, made.keep_generations)
        folder.refuse_foreign(made.name)
        published = folder.contract()
        token = published.publication.fencing_token if published is not None else 0
        with DatasetLock(files, made.samples, after=token) as lock:
            start = find_start(made, folder, folder.recover(), verify=options.get("verify", False))
            days = days_between(ALL[first], ALL[last])
            if not options.get("drop_days", False):
                days = sorted({*days, *start.damaged})
                refuse_loss(start, made, days)
            builder = PlainBuilder(files, made, self.logs, self.samples)
            extend = options.get("extend_vocabularies", False)
            return run_build(made, folder, lock, start, builder, days, extend_vocabularies=extend)

    def rollback(self) -> Contract:
        made = self.config()
        folder = DatasetFolder(LocalFiles(), made.samples, made.keep_generations)
        with DatasetLock(LocalFiles(), made.samples) as lock:
            folder.recover()
            return folder.rollback(None, lock)

    def leave_lock_behind(self) -> None:
        """A killed process cannot be seen any more; this one, which plays it, can."""
        for path in (self.samples / "_locks").glob("*.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"started": 1.0}))

    def step(self) -> None:
        action = self.draw.choice(
            ["build", "build", "build", "kill", "kill", "log", "border", "seed", "foreign", "damage", "lost", "rollback"]
        )
        self.done.append(action)
        getattr(self, f"_{action}")()
        self.look()

    def _range(self) -> tuple[int, int]:
        first = self.draw.choice([0, 0, self.draw.randrange(len(ALL))])
        return first, self.draw.choice([len(ALL) - 1, self.draw.randrange(first, len(ALL))])

    def _build(self) -> None:
        first, last = self._range()
        options = {name: self.draw.random() < 0.2 for name in ("drop_days", "extend_vocabularies", "verify")}
        self.done[-1] += f" {first} to {last} {[name for name, said in options.items() if said]}"
        try:
            report = self.build(first, last, **options)
        except ContractError as error:
            self.done[-1] += f": {error}"
            return
        # sizes are always compared, contents when asked: one of the same size may be left
        resized = {path for path, content in self.damaged.items() if content is None or options["verify"]}
        for path in resized & set(report.contract.named_files):
            assert (self.samples / path).exists(), f"{path} was damaged and is not built again"
        assert set(days_between(ALL[first], ALL[last])) <= {day.day for day in report.contract.days}

    def _kill(self) -> None:
        first, last = self._range()
        try:
            self.build(first, last, files=MortalFiles(self.draw.randrange(40), torn=self.draw.random() < 0.5))
        except Killed:
            self.done[-1] += " killed"
            self.leave_lock_behind()
        except ContractError as error:
            self.done[-1] += f": {error}"

    def _log(self) -> None:
        self.logs[self.draw.choice(ALL)] = self._items()

    def _border(self) -> None:
        self.train_last = self.draw.randrange(1, len(ALL) - 1)

    def _seed(self) -> None:
        self.seed = self.draw.randrange(3)

    def _foreign(self) -> None:
        name = self.draw.choice(
            [
                "README.md",
                f"day={ALL[0]}/part-0.parquet",
                "archive.tmp/precious.csv",
                "_staging/notes/a.txt",
                "vocabularies/b.parquet",
            ]
        )
        path = self.samples / name
        if not path.exists() and (self.samples / "contract.json").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not of this data set")
            self.foreign[path] = path.read_bytes()

    def _damage(self) -> None:
        if (self.samples / "contract.json").exists():
            path = self.draw.choice(sorted(read_contract(str(self.samples)).named_files))
            place = self.samples / path
            if self.draw.random() < 0.5 or not place.exists():
                place.unlink(missing_ok=True)
                self.damaged[path] = None
            else:
                place.write_bytes(place.read_bytes()[:-3])
                self.damaged[path] = None

    def _lost(self) -> None:
        (self.samples / "contract.json").unlink(missing_ok=True)

    def _rollback(self) -> None:
        try:
            self.rollback()
        except ContractError as error:
            self.done[-1] += f": {error}"

    def look(self) -> None:
        """What has to hold after every step."""
        for path, content in self.foreign.items():
            assert path.read_bytes() == content, f"{path} is not ours"
        if not (self.samples / "contract.json").exists():
            return
        contract = read_contract(str(self.samples))
        if not self.held or self.held[-1] != contract:
            if self.held and "drop_days" not in self.done[-1] and self.done[-1] != "rollback":
                lost = {day.day for day in self.held[-1].days} - {day.day for day in contract.days}
                assert not lost, f"{sorted(map(str, lost))} are gone, and nobody said so"
            self.held.append(contract)
        for path in [path for path in self.damaged if self.is_whole(path)]:
            del self.damaged[path]
        for reader in self.held[-2:]:
            for path in reader.named_files:
                assert path in self.damaged or self.is_whole(path), f"{path} of revision {reader.publication.revision} is gone"
            self._decode(reader)

    def look_for_litter(self) -> None:
        """Every file is named by a contract that is kept or being prepared, or is somebody else's."""
        contracts = {path.name: Contract.from_json(path.read_text()) for path in (self.samples / "_contracts").iterdir()}
        kept = list(contracts.values())
        draft = contracts.pop("draft.json", None)
        generations = {contract.publication.generation for contract in contracts.values()}
        assert draft is None or draft.publication.generation not in generations
        named = {self.samples / path for contract in kept for path in contract.named_files}
        ours = {*(self.samples / "_contracts").iterdir(), *(self.samples / "_locks").iterdir(), self.samples / "contract.json"}
        files = {path for path in self.samples.rglob("*") if path.is_file()}
        assert files - named - ours - set(self.foreign) == set()

    def is_whole(self, path: str) -> bool:
        # the name of a file holds its checksum
        place = self.samples / path
        return place.exists() and hashlib.sha256(place.read_bytes()).hexdigest()[:16] in path

    def _decode(self, contract: Contract) -> None:
        (vocabulary,) = contract.vocabularies
        paths = [file.path for day in contract.days for file in day.files]
        if vocabulary.path is None or vocabulary.path in self.damaged:
            return
        table = json.loads((self.samples / vocabulary.path).read_text())
        for path in paths:
            if path not in self.damaged:
                found = json.loads((self.samples / path).read_text())
                for item, number in zip(found["items"], found["ids"], strict=True):
                    assert number == 1 or table[number - 2] == item, f"{path}: id {number} is not {item}"


def test_a_build_that_lost_its_lock_touches_nothing_of_the_one_that_took_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, 0)
    world.build()
    world.seed = 1

    class Overtaken(PlainBuilder):
        """While it builds it looks dead, and another build prepares a generation of its own, which is killed."""

        def build(self, *arguments: Any) -> Any:
            built = super().build(*arguments)
            if monkeypatch_once:
                monkeypatch_once.pop()
                (path,) = (world.samples / "_locks").glob("*.json")
                path.write_text(json.dumps(json.loads(path.read_text()) | {"started": 1.0}))
                other = World(tmp_path, 0)
                other.seed = 2
                with pytest.raises(Killed):
                    other.build(files=MortalFiles(30))
                drafts.append(Contract.from_json((world.samples / "_contracts" / "draft.json").read_text()))
            return built

    monkeypatch_once, drafts = [True], list[Contract]()
    monkeypatch.setattr("tests.pipeline.dataset.test_publishing.PlainBuilder", Overtaken)
    with pytest.raises(DatasetLockedError, match="lost its lock"):
        world.build()
    (draft,) = drafts
    assert Contract.from_json((world.samples / "_contracts" / "draft.json").read_text()) == draft
    assert draft.days
    written = [path for path in draft.named_files if world.is_whole(path)]
    assert len(written) >= len(draft.days) - 1


def test_a_contract_whose_files_are_gone_is_not_published(tmp_path: Path) -> None:
    world = World(tmp_path, 0)
    contract = world.build().contract
    made = world.config()
    folder = DatasetFolder(LocalFiles(), made.samples)
    (lost,) = contract.days[0].files
    missing = contract.days[0].model_copy(update={"files": (lost.model_copy(update={"path": "day=2026-03-01/part-9.parquet"}),)})
    with DatasetLock(LocalFiles(), made.samples) as lock, pytest.raises(ContractError, match=r"part-9\.parquet: is missing"):
        folder.publish(contract.model_copy(update={"days": (missing, *contract.days[1:])}), lock)
    assert read_contract(made.samples) == contract


def test_a_day_whose_new_files_were_not_brought_to_their_places_keeps_those_that_are_published(tmp_path: Path) -> None:
    world = World(tmp_path, 0)
    before = world.build().contract
    world.logs[ALL[3]] = ["i1", "i2"]
    for life in range(12):
        with contextlib.suppress(Killed):
            world.build(files=MortalFiles(life))
        world.leave_lock_behind()
        contract = world.build(6, 7, drop_days=True).contract
        assert [day.day for day in contract.days] == ALL
        assert all(world.is_whole(path) for path in contract.named_files)
        world.logs[ALL[3]] = [*world.logs[ALL[3]], "i3"]
    assert before.publication.generation == contract.publication.generation


def test_removed_locks_take_nothing_from_who_reads_the_contract_before_the_last(tmp_path: Path) -> None:
    world = World(tmp_path, 0)
    before = world.build().contract
    shutil.rmtree(world.samples / "_locks")
    world.logs[ALL[3]] = ["i1", "i2"]
    after = world.build().contract
    assert after.publication.fencing_token > before.publication.fencing_token
    assert all(world.is_whole(path) for path in before.named_files)


def test_who_reads_a_contract_while_a_build_is_at_work_can_read_its_files_until_the_build_after_the_next(tmp_path: Path) -> None:
    world = World(tmp_path, 0)
    world.build()
    for number in range(2):
        world.logs = {day: [f"i{number}", f"i{place}"] for place, day in enumerate(ALL)}
        token = world.build().contract.publication.fencing_token
        read = [Contract.from_json(path.read_text()) for path in (world.samples / "_contracts").glob("0*.json")]
        meanwhile = [contract for contract in read if contract.publication.fencing_token == token]
        assert len(meanwhile) > 2
        world.logs = {day: [f"i{number + 5}", f"i{place}"] for place, day in enumerate(ALL)}
        world.build()
        assert all(world.is_whole(path) for contract in meanwhile for path in contract.named_files)


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_any_sequence_of_builds_changes_kills_and_accidents(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    try:
        for _ in range(STEPS):
            world.step()
        # and at the end a build of all days mends what there is to mend
        world.build(verify=True)
        world.look()
        contract = read_contract(str(world.samples))
        assert [day.day for day in contract.days] == ALL
        assert all(world.is_whole(path) for path in contract.named_files)
        world.look_for_litter()
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *world.done])) from error
