"""Building samples day by day: what is missing or out of date, and nothing else."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import io
import logging
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import pipeline
from pipeline.config import DataConfig, Source
from pipeline.contract import (
    Contract,
    ContractError,
    Day,
    History,
    Label,
    Vocabulary,
    vocabulary_from_parquet,
    vocabulary_to_parquet,
)
from pipeline.contract.document import fingerprint
from pipeline.encode import encoded_samples, raw_samples
from pipeline.events import days_between, read_events
from pipeline.negatives import POOL_DAYS
from pipeline.publish import Publisher, by_day
from pipeline.samples import behavior_columns, impression_columns
from pipeline.storage import FileInfo, Storage
from pipeline.vocabularies import fit

log = logging.getLogger(__name__)

ONE_DAY = dt.timedelta(days=1)
_DAY_IN_PATH = re.compile(r"/[A-Za-z_]+=(\d{4}-\d{2}-\d{2})/")


@dataclass(frozen=True)
class BuildReport:
    """What a build did: the days it wrote and the days it left as they were."""

    built: tuple[dt.date, ...]
    kept: tuple[dt.date, ...]
    contract: Contract


def build_samples(spark: SparkSession, config: DataConfig, first: dt.date, last: dt.date) -> BuildReport:
    """Build the days from ``first`` to ``last`` that are missing, or whose logs, configuration or code changed.

    A day is published with the contract that names its files, so that a build that is stopped leaves the data set as it was.

    Raises:
        LogError: a log cannot be used.
        ContractError: the folder holds a contract that this release cannot read.
    """
    publisher = Publisher(spark, config.samples)
    before = publisher.contract()
    base = before if before is not None and before.vocabulary_fingerprint == _vocabulary_fingerprint(config) else None
    if before is not None and base is None:
        log.info("vocabularies: the configuration or the code changed, all days are built anew")
    publisher.clean(before)
    if base is None:
        base = _fit(spark, config, publisher)

    wanted = _fingerprints(spark, config, base, days_between(first, last))
    finished = {day.day: day for day in base.days}
    stale = [day for day, mark in wanted.items() if day not in finished or finished[day].fingerprint != mark]
    kept = tuple(day for day in wanted if day not in stale)
    if kept:
        log.info("%d of %d days are finished and unchanged: %s", len(kept), len(wanted), _spans(kept))
    if stale:
        log.info("building %d days: %s", len(stale), _spans(stale))
        for span in _runs(stale):
            finished |= _build_days(spark, config, base, publisher, {day: wanted[day] for day in span})
    contract = base.model_copy(
        update={
            "name": config.name,
            "splits": config.splits,
            "config_fingerprint": fingerprint(_settings(config)),
            "code_fingerprint": code_fingerprint(),
            "days": tuple(finished[day] for day in sorted(finished)),
        }
    )
    if contract != before:
        publisher.publish(contract)
    return BuildReport(tuple(stale), kept, contract)


@functools.cache
def code_fingerprint() -> str:
    """Of the code that a sample depends on: this package, but for the simulated world."""
    root = pathlib.Path(pipeline.__file__).parent
    files = sorted(path for path in root.rglob("*.py") if "simulate" not in path.relative_to(root).parts)
    return fingerprint({str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files})


def _vocabulary_fingerprint(config: DataConfig) -> str:
    """Of all that vocabularies are made from, but for the logs' contents: once made, they stay."""
    parts = config.model_dump(
        mode="json", include={"log", "users", "items", "lookups", "fields", "vocabularies", "history", "seed"}
    )
    return fingerprint({**parts, "train": config.splits["train"].model_dump(mode="json"), "code": code_fingerprint()})


def _fit(spark: SparkSession, config: DataConfig, publisher: Publisher) -> Contract:
    """Make the vocabularies; a contract with no days yet."""
    train = config.splits["train"]
    log.info("making vocabularies from the training days %s to %s", train.first, train.last)
    events = read_events(spark, config, train.first, train.last)
    fitted = fit(config, impression_columns(spark, config, events), behavior_columns(spark, config, events))
    mark = _vocabulary_fingerprint(config)
    vocabularies = []
    for name, table in fitted.vocabularies.items():
        content = io.BytesIO()
        vocabulary_to_parquet(table.column("value"), table.column("count"), content)
        path = f"vocabularies/{mark[:12]}/{name}.parquet"
        publisher.write_vocabulary(path, content.getvalue())
        sha256 = hashlib.sha256(content.getvalue()).hexdigest()
        vocabularies.append(Vocabulary(name=name, size=table.num_rows + 2, path=path, sha256=sha256))
    negatives = config.log.negatives
    return Contract(
        name=config.name,
        fields=fitted.fields,
        vocabularies=tuple(vocabularies),
        vocabulary_fingerprint=mark,
        history=History(length=config.history.length, days=config.history.days),
        label=Label(
            kind=config.log.kind,
            attribution_hours=config.log.attribution_hours if config.log.clicks is not None else None,
            negatives_per_positive=negatives.uniform + negatives.popularity if negatives is not None else None,
        ),
        splits=config.splits,
        config_fingerprint="",
        code_fingerprint="",
        days=(),
    )


def _build_days(
    spark: SparkSession, config: DataConfig, base: Contract, publisher: Publisher, marks: Mapping[dt.date, str]
) -> dict[dt.date, Day]:
    """Build a run of days without gaps."""
    events = read_events(spark, config, min(marks), max(marks))
    impressions, behaviors = impression_columns(spark, config, events), behavior_columns(spark, config, events)
    rows = sum(events.counts.values())
    values = {v.name: _values(publisher, v) for v in base.vocabularies}
    broadcast = spark.sparkContext.broadcast(values)
    samples = encoded_samples(impressions, behaviors, base.fields, base.history, broadcast, rows)
    files_of = {day: -(-events.counts.get(day, 0) // config.rows_per_file) for day in marks}
    files, positives = publisher.write_samples(samples, files_of, marks, config.seed)
    lost = [day for day in marks if day not in files and day not in config.log.empty_days]
    if lost:
        raise ContractError(f"no samples were written for {_spans(lost)}, though the log has impressions then")
    examples = {}
    held_out = [day for day in files if day not in config.splits["train"]]
    if config.examples_per_day and held_out:
        every = by_day({day: max(1, sum(f.rows for f in files[day]) // config.examples_per_day) for day in held_out})
        drawn = impressions.where(F.col("day").isin(held_out))
        drawn = drawn.where(F.pmod(F.xxhash64("impression_id", F.lit(config.seed + 2)), every) == 0)
        theirs = behaviors.join(drawn.select("user_id").distinct(), "user_id", "left_semi")
        raw = raw_samples(drawn, theirs, base.fields, base.history, config.examples_per_day * len(held_out))
        examples = publisher.write_examples(raw, marks, config.seed)
    broadcast.destroy()
    return {
        day: Day(
            day=day,
            rows=sum(file.rows for file in files.get(day, ())),
            positives=positives.get(day, 0),
            fingerprint=mark,
            files=files.get(day, ()),
            examples=examples.get(day),
        )
        for day, mark in marks.items()
    }


def _settings(config: DataConfig) -> dict[str, Any]:
    """What a day's samples depend on, but for where they go and what they are called."""
    return config.model_dump(mode="json", exclude={"simulate", "splits", "name", "samples", "logs"})


def _values(publisher: Publisher, vocabulary: Vocabulary) -> pa.Array:
    content = publisher.read_vocabulary(vocabulary.path)
    if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
        raise ContractError(f"{vocabulary.path}: does not have the checksum that the contract says; build into an empty folder")
    return vocabulary_from_parquet(io.BytesIO(content)).column("value").combine_chunks()


def _fingerprints(spark: SparkSession, config: DataConfig, base: Contract, days: Iterable[dt.date]) -> dict[dt.date, str]:
    """What each day's samples depend on, and would be built anew for if it changed."""
    storage = Storage(spark)
    history = config.history.days * ONE_DAY
    before = history if config.log.clicks is None else dt.timedelta(0)
    if config.log.kind == "positives_only":
        before = max(history, (POOL_DAYS - 1) * ONE_DAY)
    sources: list[tuple[Source, dt.timedelta | None, dt.timedelta]] = [(config.log.impressions, before, dt.timedelta(0))]
    if config.log.clicks is not None:
        sources.append((config.log.clicks, history, config.attribution + ONE_DAY))
    sources += [(source, None, dt.timedelta(0)) for source in (config.users, config.items, *config.lookups) if source is not None]
    listed = [(list(_list(storage, source)), back, ahead) for source, back, ahead in sources]
    common = {"config": _settings(config), "code": code_fingerprint(), "vocabularies": base.vocabulary_fingerprint}
    marks = {}
    for day in days:
        inputs = [
            [(info.path, info.size, info.modified) for info in files if _concerns(info, day, back, ahead)]
            for files, back, ahead in listed
        ]
        marks[day] = fingerprint({**common, "inputs": inputs})
    return marks


def _list(storage: Storage, source: Source) -> Iterable[FileInfo]:
    for path in storage.glob(source.path):
        yield from storage.files(path)


def _concerns(info: FileInfo, day: dt.date, back: dt.timedelta | None, ahead: dt.timedelta) -> bool:
    """Whether a file can hold rows that a day's samples need: by the day in its path, where it has one."""
    found = _DAY_IN_PATH.search(info.path)
    if found is None:
        return True
    of = dt.date.fromisoformat(found[1])
    return of <= day + ahead and (back is None or of >= day - back)


def _runs(days: Iterable[dt.date]) -> list[list[dt.date]]:
    runs: list[list[dt.date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == ONE_DAY:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _spans(days: Iterable[dt.date]) -> str:
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in _runs(days))
