"""What a day's samples depend on: configuration, code, vocabularies, and the files that its rows come from."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.abc import Traversable
from typing import Any

from pyspark.sql import SparkSession

import pipeline
from pipeline.config import DataConfig, Source
from pipeline.contract.document import fingerprint
from pipeline.events import ONE_DAY, impressions_ahead, reach_back
from pipeline.storage import FileInfo, Storage

_DAY_IN_PATH = re.compile(r"/[A-Za-z_]+=(\d{4}-\d{2}-\d{2})/")
#: Parts of this package that no sample depends on.
_ELSEWHERE = ("simulate", "importers", "audit", "describe")


@dataclass(frozen=True)
class _Inputs:
    """The files of a source, and which days' samples they matter to: those up to ``ahead`` before the file's day, to ``back`` after.

    ``back`` is None where a row counts for ever.
    """

    files: Sequence[FileInfo]
    back: dt.timedelta | None
    ahead: dt.timedelta

    def of(self, day: dt.date) -> list[FileInfo]:
        return [info for info in self.files if self._concerns(info, day)]

    def _concerns(self, info: FileInfo, day: dt.date) -> bool:
        found = _DAY_IN_PATH.search(info.path)
        if found is None:
            return True
        try:
            of = dt.date.fromisoformat(found[1])
        except ValueError:  # a folder of no day, such as 2026-02-30: its rows break a rule, whichever day is built
            return True
        return of <= day + self.ahead and (self.back is None or of >= day - self.back)


@functools.cache
def code_fingerprint() -> str:
    """Of the code that a sample depends on."""
    return fingerprint({path: hashlib.sha256(content).hexdigest() for path, content in sorted(_code(resources.files(pipeline)))})


def _code(folder: Traversable, path: str = "") -> Iterator[tuple[str, bytes]]:
    """The modules of a package, each with its path in there; the package may lie in a zip file, as on a cluster."""
    for entry in folder.iterdir():
        if entry.is_dir() and (path or entry.name not in _ELSEWHERE):
            yield from _code(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{path}{entry.name}", entry.read_bytes()


def vocabulary_fingerprint(config: DataConfig) -> str:
    """Of the configuration and code that vocabularies are made with; not of the logs' contents: once made, they stay."""
    kept = {"log", "users", "items", "lookups", "fields", "vocabularies", "history", "seed"}
    parts = {key: value for key, value in _settings(config).items() if key in kept}
    return fingerprint({**parts, "code": code_fingerprint()})


def settings_fingerprint(config: DataConfig) -> str:
    """Of what samples depend on, but for where they go and what they are called."""
    return fingerprint(_settings(config))


def day_fingerprint(config: DataConfig, day: dt.date, vocabularies: str, inputs: str) -> str:
    """Of all that one day's samples depend on."""
    parts = {"config": _settings(config), "kept": config.sampled(day), "code": code_fingerprint(), "vocabularies": vocabularies}
    return fingerprint({**parts, "held_out": day not in config.splits["train"], "inputs": inputs})


def input_fingerprints(spark: SparkSession, config: DataConfig, days: Iterable[dt.date]) -> dict[dt.date, str]:
    """Of the files that each day's samples are made from: paths, sizes, times of change."""
    log, back, none = config.log, reach_back(config), dt.timedelta(0)
    from_impressions = log.clicks is None and not log.behaviors
    sources: list[tuple[Source, dt.timedelta | None, dt.timedelta]] = [
        (log.impressions, back if from_impressions or log.kind == "positives_only" else none, impressions_ahead(config))
    ]
    if log.clicks is not None:
        sources.append((log.clicks, none if log.behaviors else back, log.attribution + ONE_DAY))
    sources += [(source, back, none) for source in log.behaviors.values()]
    if config.users is not None:
        sources.append((config.users, config.users.reach, none))
    if config.items is not None:
        sources.append((config.items, config.items.reach + back if config.items.reach is not None else None, none))
    sources += [(source, None, none) for source in config.lookups]
    storage = Storage(spark)
    inputs = [
        _Inputs(_files(spark, storage, source), reach, ahead + source.late_days * ONE_DAY) for source, reach, ahead in sources
    ]
    return {
        day: fingerprint([[(info.path, info.size, info.modified) for info in source.of(day)] for source in inputs])
        for day in days
    }


def _files(spark: SparkSession, storage: Storage, source: Source) -> list[FileInfo]:
    if source.path is None:
        return [storage.info(path) for path in sorted(spark.read.table(str(source.table)).inputFiles())]
    return [info for path in storage.glob(source.path) for info in storage.files(path)]


def _settings(config: DataConfig) -> dict[str, Any]:
    # what a nightly build may say anew without another sample coming out: where, how much at once, which days are known to be what
    others = {"simulate", "splits", "name", "samples", "logs", "sampling", "quality", "rows_per_pass"}
    settings = config.model_dump(mode="json", exclude=others)
    settings["log"] = {key: value for key, value in settings["log"].items() if key not in ("empty_days", "complete_to")}
    return settings
