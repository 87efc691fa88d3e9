"""A builder that needs no Spark: logs are a dictionary, a day's file holds the ids of its items. Files can fail, and builds be killed."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mian.contract import Contract, Day, SampleFile, Split, Vocabulary
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import SAMPLES_VERSION, day_fingerprint, vocabulary_fingerprint
from pipeline.dataset.run import BuiltDays
from pipeline.dataset.schedule import Schedule
from pipeline.io.files import LocalFiles
from tests.factories import categorical, make_contract

Logs = dict[dt.date, list[str]]


class Killed(BaseException):
    """What ends a build that is killed: nobody catches it."""


class MortalFiles(LocalFiles):
    """Files of a process that is killed before, in the middle of, or after its ``life``-th change; from then on it changes nothing."""

    def __init__(self, life: float = float("inf"), torn: bool = False) -> None:
        self._life = life
        self._torn = torn

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        self._life -= 1
        if self._life < 0:
            raise Killed
        yield
        if self._life == 0 and self._torn:
            self._life = -1
            raise Killed

    def write(self, path: str, content: bytes) -> None:
        with self._change():
            super().write(path, content)

    def create(self, path: str, content: bytes) -> bool:
        with self._change():
            return super().create(path, content)

    def replace(self, source: str, target: str) -> None:
        with self._change():
            super().replace(source, target)

    def remove(self, path: str) -> None:
        with self._change():
            super().remove(path)


class PlainBuilder:
    """See :class:`pipeline.dataset.run.Builder`. Days are built two at a time.

    Args:
        files: writes.
        config: the data set.
        logs: each day's items.
        folder: of the samples.
    """

    def __init__(self, files: LocalFiles, config: DataConfig, logs: Logs, folder: Path) -> None:
        self._files = files
        self._config = config
        self._logs = logs
        self._folder = folder

    def schedule(self, finished: Mapping[dt.date, Day], vocabularies: str, days: Iterable[dt.date]) -> Schedule:
        inputs = {day: hashlib.sha256(json.dumps(self._logs[day]).encode()).hexdigest() for day in days}
        fingerprints = {day: day_fingerprint(self._config, day, vocabularies, inputs[day]) for day in inputs}
        same = {day for day in inputs if day in finished and finished[day].fingerprint == fingerprints[day]}
        return Schedule(finished, inputs, {day: "" if day in same else "changed" for day in sorted(inputs)})

    def extended(self, base: Contract) -> BuiltDays:
        train = self._config.splits["train"]
        first = max(train.first, base.vocabulary_days[-1].last + dt.timedelta(days=1))
        if first > train.last:
            return BuiltDays(base, {}, {}, {})
        path = base.vocabularies[0].path
        assert path is not None
        known: list[str] = json.loads(self._files.read_bytes(str(self._folder / path)))
        new = sorted({item for day, items in self._logs.items() if first <= day <= train.last for item in items} - {*known})
        spans = (*base.vocabulary_days, Split(first=first, last=train.last))
        return self._with_table(base.model_copy(update={"vocabulary_days": spans}), known + new)

    def vocabularies(self) -> BuiltDays:
        train = self._config.splits["train"]
        items = sorted({item for day, items in self._logs.items() if day in train for item in items})
        contract = make_contract(
            categorical("candidate", "item_id", "item_id"),
            vocabularies=(),
            length=1,
            name=self._config.name,
            vocabulary_fingerprint=vocabulary_fingerprint(self._config),
            vocabulary_days=(train,),
            splits=self._config.splits,
            samples_version=SAMPLES_VERSION,
        )
        # another seed, another order: ids of one generation mean nothing in another
        return self._with_table(contract, items[self._config.seed :] + items[: self._config.seed])

    def _with_table(self, contract: Contract, items: list[str]) -> BuiltDays:
        content = json.dumps(items).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        path = f"vocabularies/item_id-{sha256[:16]}.parquet"
        table = Vocabulary(name="item_id", size=len(items) + 2, path=path, sha256=sha256, bytes=len(content))
        return BuiltDays(contract.model_copy(update={"vocabularies": (table,)}), {}, {}, {path: content})

    def passes(self, days: list[dt.date]) -> Iterable[list[dt.date]]:
        return [days[i : i + 2] for i in range(0, len(days), 2)]

    def build(
        self,
        base: Contract | None,
        days: list[dt.date],
        inputs: Mapping[dt.date, str],
        contents: Mapping[str, bytes],
        staging: str,
    ) -> BuiltDays:
        small = dict(contents)
        if base is None:
            made = self.vocabularies()
            base, small = made.base, dict(made.contents)
        path = base.vocabularies[0].path
        assert path is not None
        table: list[str] = json.loads(small[path] if path in small else self._files.read_bytes(str(self._folder / path)))
        built, names = {}, {}
        for day in days:
            ids = [table.index(item) + 2 if item in table else 1 for item in self._logs[day]]
            content = json.dumps({"day": str(day), "items": self._logs[day], "ids": ids}).encode()
            sha256 = hashlib.sha256(content).hexdigest()
            name = f"day={day}/part-00000-{sha256[:16]}.parquet"
            self._files.write(f"{staging}/{day}", content)
            names[f"{staging}/{day}"] = name
            file = SampleFile(path=name, rows=len(ids), bytes=len(content), sha256=sha256)
            mark = day_fingerprint(self._config, day, base.vocabulary_fingerprint, inputs[day])
            built[day] = Day(day=day, rows=len(ids), positives=0, fingerprint=mark, inputs=inputs[day], files=(file,))
        return BuiltDays(base, built, names, small)

    def is_final(self, day: dt.date) -> bool:
        return False
