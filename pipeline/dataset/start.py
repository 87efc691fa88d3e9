"""From where a build goes on: the published samples, days that an earlier build prepared, or nothing."""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from mian.contract import Contract, ContractError, Day, Publication, Split
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import SAMPLES_VERSION, setting_fingerprints, vocabulary_fingerprint
from pipeline.dataset.folder import DatasetFolder
from pipeline.dataset.schedule import spans
from pipeline.days import days_between
from pipeline.io.files import plain
from pipeline.io.storage import Storage


@dataclass(frozen=True)
class Start:
    """Where a build begins.

    ``base`` has vocabularies, if there are any to go on with; ``finished`` are its days that are whole, ``damaged`` those that are
    not. ``published`` is what readers read now. ``reason`` says why a new generation is made of it, and is empty where none is.
    """

    base: Contract | None
    published: Contract | None
    publication: Publication
    finished: dict[dt.date, Day]
    damaged: dict[dt.date, str]
    reason: str

    def missing(self, days: Iterable[dt.date]) -> list[dt.date]:
        """The published days that would not be there any more if these days, and no others, were built."""
        finished_days = {*self.finished, *days}
        published = self.published.days if self.published is not None else ()
        return sorted(day.day for day in published if day.day not in finished_days)


def find_start(config: DataConfig, folder: DatasetFolder, published: Contract | None, *, verify: bool = False) -> Start:
    """Find out what can stay, and what was prepared already.

    Args:
        config: the data set.
        folder: where it lies.
        published: its contract, if it has one.
        verify: whether to compare checksums of files, and not their sizes alone.
    """
    reason = _why_not(config, folder, published, verify) if published is not None else ""
    draft = folder.draft()
    usable_draft = draft is not None and not _why_not(config, folder, draft, verify)
    if published is not None and not reason:
        # days prepared for a publication before this one are out of date
        goes_on = draft if usable_draft and draft is not None and draft.publication == published.publication else published
        return _start(folder, goes_on, published, published.publication, reason, verify)
    number = folder.next_generation()
    if draft is not None and usable_draft and draft.publication.generation not in {g.number for g in folder.generations()}:
        return _start(folder, draft, published, draft.publication, reason, verify)
    return Start(None, published, Publication(generation=number), {}, {}, reason)


def refuse_overlap(spark: SparkSession, config: DataConfig) -> None:
    """Make sure that the samples lie apart from the logs.

    Raises:
        ContractError: their folder is that of a table, or lies in it, or above it.
    """
    storage = Storage(spark)
    samples = _place(storage, config.samples)
    for name, source, _ in config.sources():
        for path in storage.glob(source.path) if source.path is not None else _folders(spark, str(source.table)):
            log = _place(storage, path)
            if samples == log or samples.startswith(f"{log}/") or log.startswith(f"{samples}/"):
                place = f"{name}.path {source.path}" if source.path is not None else f"{name}.table {source.table}"
                raise ContractError(
                    f"samples: {config.samples} is the same folder as {place}, or one is inside the other; "
                    "set samples to a folder apart from all logs"
                )


def _start(
    folder: DatasetFolder, base: Contract, published: Contract | None, publication: Publication, reason: str, verify: bool
) -> Start:
    """``base`` goes on from ``published`` where there is no reason for another generation: a day that is whole in either one stays."""
    finished: dict[dt.date, Day] = {}
    damaged: dict[dt.date, str] = {}
    for contract in [published, base] if published is not None and published != base and not reason else [base]:
        wrong = folder.damaged(contract, verify=verify)
        for day in contract.days:
            faults = [f"{file.path} {wrong[file.path]}" for file in day.named_files if file.path in wrong]
            if faults:
                damaged[day.day] = faults[0]
            else:
                finished[day.day] = day
    return Start(base, published, publication, finished, {d: w for d, w in damaged.items() if d not in finished}, reason)


def _why_not(config: DataConfig, folder: DatasetFolder, contract: Contract, verify: bool) -> str:
    """Why the vocabularies and days of a contract cannot stay; empty where they can."""
    if contract.samples_version != SAMPLES_VERSION:
        return f"this release makes samples by other rules (version {SAMPLES_VERSION}, the samples are of {contract.samples_version})"
    if contract.vocabulary_fingerprint != vocabulary_fingerprint(config):
        parts = setting_fingerprints(config)
        changed = sorted(name for name in {*parts, *contract.settings} if parts.get(name) != contract.settings.get(name))
        return f"the configuration changed ({', '.join(changed)})"
    train = config.splits["train"]
    held_out = [split for name, split in config.splits.items() if name != "train"]
    for made in contract.vocabulary_days:
        if made.last > train.last or any(split.first <= made.last and made.first <= split.last for split in held_out):
            return f"days that vocabularies were made from are held out now ({made.first} to {made.last})"
    added = _days(config.splits.values()) - _days(contract.splits.values()) - _days(contract.vocabulary_days)
    for made in contract.vocabulary_days:
        earlier = sorted(day for day in added if made.first - config.history.reach <= day < made.first)
        if earlier:
            return (
                f"samples of {spans(earlier)} are asked for, whose clicks vocabularies were made from, and not their impressions"
            )
    wrong = folder.damaged(contract.model_copy(update={"days": ()}), verify=verify)
    if wrong:
        return ", ".join(f"{path} {what}" for path, what in sorted(wrong.items()))
    return ""


def _days(splits: Iterable[Split]) -> set[dt.date]:
    return {day for span in splits for day in days_between(span.first, span.last)}


def _folders(spark: SparkSession, table: str) -> set[str]:
    """Where the files of a table of the catalog lie; nothing where it has none, or cannot be read, which is told where it is read."""
    try:
        files = spark.read.table(table).inputFiles()
    except AnalysisException:
        return set()
    return {unquote(file).rpartition("/")[0] for file in files}


def _place(storage: Storage, path: str) -> str:
    """A path that can be compared with others: links of this machine are followed."""
    whole = plain(storage.qualified(path)).rstrip("/")
    return str(pathlib.Path(whole).resolve()) if whole.startswith("/") else whole


def refuse_loss(start: Start, config: DataConfig, days: Iterable[dt.date]) -> None:
    """Make sure that no published day is lost.

    Raises:
        ContractError: days would be missing from the new samples.
    """
    missing = start.missing(days)
    if missing:
        raise ContractError(
            f"{config.samples}: {start.reason or 'files are damaged'}, so that days are built anew, and {len(missing)} of the "
            f"{len(start.published.days if start.published is not None else ())} published days would be missing: {spans(missing)}. "
            f"Build them too (--from {min([*missing, *days])} --to {max([*missing, *days])}), leave them out with --drop-days, or "
            "take the change back. Nothing was changed"
        )
