"""The vocabularies of a data set: made once, kept in its folder, extended when asked."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Iterable

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from mian.contract import Contract, ContractError, Label, Split, vocabulary_from_parquet, vocabulary_to_parquet
from mian.contract.encoder import FIRST_ID
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import SAMPLES_VERSION, vocabulary_fingerprint
from pipeline.dataset.folder import DatasetFolder
from pipeline.dataset.sample_writer import NAME_DIGITS
from pipeline.days import ONE_DAY, days_between
from pipeline.encoding.vocabularies import Fitted, TrainingDays, extend, fit, references
from pipeline.join.spark_join import join_days
from pipeline.logs.events import EventLogs

log = logging.getLogger(__name__)


class VocabularyStore:
    """Makes, extends and reads the vocabularies of one data set.

    Args:
        spark: the session.
        config: the data set.
        folder: where it lies.

    Attributes:
        pending: tables that were made and are not in the folder yet: their contents by their names in there.
    """

    def __init__(self, spark: SparkSession, config: DataConfig, folder: DatasetFolder) -> None:
        self._spark = spark
        self._config = config
        self._folder = folder
        self.pending: dict[str, bytes] = {}
        self._logs = EventLogs(spark, config)

    def make(self) -> Contract:
        """Make the vocabularies alone; see :meth:`make_from`.

        Raises:
            LogError: a log cannot be used.
        """
        train = self._config.splits["train"]
        joined = self._joined(train)
        try:
            return self.make_from(joined)
        finally:
            joined.unpersist()

    def make_from(self, joined: DataFrame) -> Contract:
        """Make vocabularies, transforms and references of a join of all training days: a contract with no days yet.

        Args:
            joined: see :func:`pipeline.join.spark_join.join_days`; kept by the caller, it is read more than once.
        """
        config = self._config
        train = config.splits["train"]
        log.info("making vocabularies from the training days %s to %s", train.first, train.last)
        days = TrainingDays(config, joined)
        fitted = fit(days)
        clicks, negatives = config.log.clicks is not None, config.log.negatives
        contract = Contract(
            name=config.name,
            fields=fitted.fields,
            vocabularies=(),
            vocabulary_fingerprint=vocabulary_fingerprint(config),
            vocabulary_days=(train,),
            history=config.history_rules,
            label=Label(
                kind=config.log.kind,
                attribution_hours=config.log.attribution_hours if clicks else None,
                attribution_by=config.log.attribution_by if clicks else None,
                negatives_per_positive=negatives.uniform + negatives.popularity if negatives is not None else None,
            ),
            splits=config.splits,
            day_time_zone=config.day_time_zone,
            config_fingerprint="",
            samples_version=SAMPLES_VERSION,
            code_fingerprint="",
            days=(),
        )
        contract = self._with_tables(contract, fitted)
        return contract.model_copy(update={"reference": references(contract, fitted.tables, days)})

    def extended(self, base: Contract) -> Contract:
        """Give ids to the values of the training days after those that the vocabularies were made from; no id moves.

        Args:
            base: the contract whose vocabularies are to grow.

        Raises:
            LogError: a log cannot be used.
            ContractError: a vocabulary's file is not the one that the contract names.
        """
        train, known = self._config.splits["train"], max(span.last for span in base.vocabulary_days)
        first = max(train.first, known + ONE_DAY)
        if first > train.last:
            log.info("vocabularies: made from the training days up to %s already", known)
            return base
        log.info("extending vocabularies by the training days %s to %s", first, train.last)
        joined = self._joined(Split(first=first, last=train.last))
        try:
            days = TrainingDays(self._config, joined)
            tables = {name: extend(days, name, table) for name, table in self.tables(base).items()}
        finally:
            joined.unpersist()
        sizes = {name: table.num_rows + FIRST_ID for name, table in tables.items()}
        specs = tuple(v.model_copy(update={"size": sizes.get(v.name, v.size)}) for v in base.vocabularies)
        grown = base.model_copy(
            update={
                "vocabulary_version": base.vocabulary_version + 1,
                "vocabulary_days": _with_span(base.vocabulary_days, Split(first=first, last=train.last)),
            }
        )
        return self._with_tables(grown, Fitted(base.fields, specs, tables))

    def _joined(self, days: Split) -> DataFrame:
        """What the join finds in some training days; kept on disk, as it is read more than once."""
        events = self._logs.read(days.first, days.last)
        every = days_between(days.first, days.last)
        return join_days(self._spark, self._config, events, every, fit_days=days, samples=False).persist(StorageLevel.DISK_ONLY)

    def _with_tables(self, contract: Contract, fitted: Fitted) -> Contract:
        """Name the tables of vocabularies by their contents."""
        vocabularies = []
        for vocabulary in fitted.vocabularies:
            if vocabulary.kind == "table":
                table, file = fitted.tables[vocabulary.name], io.BytesIO()
                vocabulary_to_parquet(table.column("value"), table.column("count"), file)
                content = file.getvalue()
                sha256 = hashlib.sha256(content).hexdigest()
                path = f"vocabularies/{_file_name(vocabulary.name)}-{sha256[:NAME_DIGITS]}.parquet"
                self.pending[path] = content
                vocabulary = vocabulary.model_copy(update={"path": path, "sha256": sha256, "bytes": len(content)})
            vocabularies.append(vocabulary)
        return contract.model_copy(update={"vocabularies": tuple(vocabularies)})

    def tables(self, contract: Contract) -> dict[str, pa.Table]:
        """The vocabularies that are tables: columns ``value`` and ``count``, in the order of ids.

        Raises:
            ContractError: a file is not the one that the contract names.
        """
        tables = {}
        for vocabulary in contract.vocabularies:
            if vocabulary.path is not None:
                content = self.pending.get(vocabulary.path) or self._folder.read(vocabulary.path)
                if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
                    raise ContractError(
                        f"{vocabulary.path}: does not have the checksum that the contract says; build with --verify"
                    )
                tables[vocabulary.name] = vocabulary_from_parquet(io.BytesIO(content))
        return tables


def _with_span(days: Iterable[Split], span: Split) -> tuple[Split, ...]:
    """Training days and those that follow, which join the last of them where there is no gap."""
    *earlier, last = days
    if last.last + ONE_DAY == span.first:
        return (*earlier, Split(first=last.first, last=span.last))
    return (*earlier, last, span)


def _file_name(vocabulary: str) -> str:
    """A vocabulary's name as part of a file's; the checksum behind it tells apart what becomes the same here."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", vocabulary)
