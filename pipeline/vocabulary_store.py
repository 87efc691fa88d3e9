"""The vocabularies of a data set: made once, kept in its folder, extended when asked."""

from __future__ import annotations

import hashlib
import io
import logging

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from pipeline.config import DataConfig
from pipeline.contract import Contract, ContractError, History, Label, Split, vocabulary_from_parquet, vocabulary_to_parquet
from pipeline.contract.encoder import FIRST_ID
from pipeline.events import ONE_DAY, EventLogs, days_between
from pipeline.fingerprints import vocabulary_fingerprint
from pipeline.join.days import join_days
from pipeline.publish import Publisher
from pipeline.vocabularies import Fitted, TrainingDays, extend, fit, references

log = logging.getLogger(__name__)


class VocabularyStore:
    """Makes, extends and reads the vocabularies of one data set.

    Args:
        spark: the session.
        config: the data set.
        publisher: of its folder.
    """

    def __init__(self, spark: SparkSession, config: DataConfig, publisher: Publisher) -> None:
        self._spark = spark
        self._config = config
        self._publisher = publisher
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
            joined: see :func:`pipeline.join.days.join_days`; kept by the caller, it is read more than once.
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
            vocabulary_days=train,
            history=History(**config.history.model_dump()),
            label=Label(
                kind=config.log.kind,
                attribution_hours=config.log.attribution_hours if clicks else None,
                attribution_by=config.log.attribution_by if clicks else None,
                negatives_per_positive=negatives.uniform + negatives.popularity if negatives is not None else None,
            ),
            splits=config.splits,
            day_time_zone=config.day_time_zone,
            config_fingerprint="",
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
        train, known = self._config.splits["train"], base.vocabulary_days
        assert known is not None
        first = max(train.first, known.last + ONE_DAY)
        if first > train.last:
            log.info("vocabularies: made from the training days up to %s already", known.last)
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
                "vocabulary_days": Split(first=known.first, last=train.last),
            }
        )
        return self._with_tables(grown, Fitted(base.fields, specs, tables))

    def _joined(self, days: Split) -> DataFrame:
        """What the join finds in some training days; kept on disk, as it is read more than once."""
        events = self._logs.read(days.first, days.last)
        every = days_between(days.first, days.last)
        return join_days(self._spark, self._config, events, every, fit_days=days, samples=False).persist(StorageLevel.DISK_ONLY)

    def _with_tables(self, contract: Contract, fitted: Fitted) -> Contract:
        """Write the tables of vocabularies, and name them."""
        folder = f"vocabularies/{contract.vocabulary_fingerprint[:12]}-v{contract.vocabulary_version}"
        vocabularies = []
        for vocabulary in fitted.vocabularies:
            if vocabulary.kind == "table":
                table, content = fitted.tables[vocabulary.name], io.BytesIO()
                vocabulary_to_parquet(table.column("value"), table.column("count"), content)
                file = self._publisher.write(f"{folder}/{vocabulary.name}.parquet", content.getvalue(), table.num_rows)
                vocabulary = vocabulary.model_copy(update={"path": file.path, "sha256": file.sha256})
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
                content = self._publisher.read(vocabulary.path)
                if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
                    raise ContractError(
                        f"{vocabulary.path}: does not have the checksum that the contract says; build into an empty folder"
                    )
                tables[vocabulary.name] = vocabulary_from_parquet(io.BytesIO(content))
        return tables
