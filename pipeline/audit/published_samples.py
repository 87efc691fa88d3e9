"""The data set as it was published: its contract, its samples, its vocabularies."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from mian.contract import CONTRACT_FILE, PADDING_ID, UNKNOWN_ID, Contract, Encoder, Field, Vocabulary, vocabulary_from_parquet
from pipeline.audit.findings import Finding
from pipeline.config import DataConfig
from pipeline.io.files import literal
from pipeline.io.storage import Storage


class AuditError(ValueError):
    """A data set that cannot be audited: what is wrong, what to do."""


@dataclass(frozen=True)
class Published:
    """A data set.

    ``samples`` has the columns of the files and ``day``, a date. ``tables`` has the values of each vocabulary that is a table, in the
    order of ids.
    """

    contract: Contract
    samples: DataFrame
    tables: dict[str, pa.Table]

    @property
    def values(self) -> dict[str, pa.Array]:
        """The values of the vocabularies that are tables."""
        return {name: table.column("value").combine_chunks() for name, table in self.tables.items()}

    @property
    def encoder(self) -> Encoder:
        """From raw values to what the samples hold."""
        return Encoder(self.contract.vocabularies, self.values)

    @property
    def extended(self) -> bool:
        """Whether its vocabularies grew after they were made."""
        return self.contract.vocabulary_version > 1

    def words(self, field: Field, held: Any) -> str:
        """What a column holds, with the value of an id where it has one."""
        if field.vocabulary is None or held == PADDING_ID:
            return str(held)
        if held == UNKNOWN_ID:
            return f"{held} (unknown)"
        values = self.tables.get(field.vocabulary)
        is_recorded = values is not None and 2 <= held < values.num_rows + 2
        return f"{held} ({values['value'][held - 2].as_py()!r})" if values is not None and is_recorded else str(held)


def read_published(spark: SparkSession, folder: str) -> tuple[Published, list[Finding]]:
    """Read a data set, and compare its files with what the contract says of them.

    Raises:
        AuditError: there is no contract, no day, or a file that the contract names is missing.
        ContractError: the contract cannot be read.
    """
    storage, folder = Storage(spark), folder.rstrip("/")
    path = f"{folder}/{CONTRACT_FILE}"
    if not storage.exists(path):
        raise AuditError(f"{path}: no such file; run jobs/build_samples.py first, or correct the path of the samples")
    contract = Contract.from_json(storage.read_text(path), path)
    files = [file.path for day in contract.days for file in day.files]
    if not files:
        raise AuditError(f"{path}: names no sample; run jobs/build_samples.py first")
    findings = list(_checked_files(spark, storage, folder, contract))
    samples = spark.read.option("basePath", folder).parquet(*[literal(f"{folder}/{name}") for name in files])
    columns = {"impression_id", "user_key", "time", "label", "behavior_length", *(field.column for field in contract.fields)}
    if columns - set(samples.columns):
        raise AuditError(f"{folder}: the samples have no column {', '.join(sorted(columns - set(samples.columns)))}")
    tables = {v.name: _table(storage, folder, v) for v in contract.vocabularies if v.kind == "table"}
    return Published(contract, samples.withColumn("day", samples["day"].cast("date")), tables), findings


def _table(storage: Storage, folder: str, vocabulary: Vocabulary) -> pa.Table:
    try:
        return vocabulary_from_parquet(io.BytesIO(storage.read_bytes(f"{folder}/{vocabulary.path}")))
    except pa.ArrowInvalid as error:
        raise AuditError(f"{folder}/{vocabulary.path}: not a vocabulary ({error}); build the samples again") from error


def _checked_files(spark: SparkSession, storage: Storage, folder: str, contract: Contract) -> Iterator[Finding]:
    """Files whose contents or places are not what the contract says."""
    named = {file.path: (file.sha256, str(day.day)) for day in contract.days for file in day.named_files}
    named |= {str(v.path): (str(v.sha256), "") for v in contract.vocabularies if v.kind == "table"}
    paths = {storage.qualified(f"{folder}/{path}"): path for path in named}
    reader = spark.read.format("binaryFile")
    try:
        rows = reader.load(sorted(map(literal, paths))).selectExpr("path", "sha2(content, 256) AS sha256").collect()
    except AnalysisException as error:
        missing = next((path for path in paths if not storage.exists(path)), folder)
        raise AuditError(f"{missing}: the contract names it and it is not there; build the samples again") from error
    for row in sorted(rows):
        path = paths[storage.qualified(row["path"])]
        said, day = named[path]
        if row["sha256"] != said:
            yield Finding("file", f"{path} with SHA-256 {row['sha256'][:12]}", f"{said[:12]} (the contract)", day)
    for path, (_, day) in named.items():
        if day and not path.startswith(f"day={day}/"):
            yield Finding("file", f"{path} among the files of the day", "that it lies in another day's folder", day)


def compare_contract(config: DataConfig, contract: Contract, fingerprint: str) -> tuple[list[str], list[Finding]]:
    """In what the contract differs from the configuration: what is worth a word, and what is a finding.

    Args:
        config: what the auditor believes.
        contract: what the samples were built with.
        fingerprint: of the configuration.
    """
    notes = []
    if contract.config_fingerprint != fingerprint:
        notes.append("the contract is of another configuration; what follows goes by the rules of the configuration file")
    if contract.splits != config.splits:
        notes.append("the contract has other splits than the configuration file, whose splits count here")
    findings = []
    configured = {column: field for column, _, field in config.columns()}
    held = {field.column: field for field in contract.fields}
    for column in sorted(configured.keys() - held.keys()):
        findings.append(Finding("field", "no such column", "it is a field of the configuration", column=column))
    for column in sorted(held.keys() - configured.keys()):
        findings.append(
            Finding("field", "a column that nothing is known of", "it is no field of the configuration", column=column)
        )
    for column in sorted(held.keys() & configured.keys()):
        field, transform = configured[column], held[column].transform
        wanted = None
        if field.kind == "numeric" and field.transform != "quantiles":
            wanted = "log" if field.transform == "log" else "identity"
        kind = transform.kind if transform is not None else None
        if kind != wanted:
            findings.append(Finding("field", f"transform {kind}", f"transform {wanted} (the configuration)", column=column))
    return notes, findings


def same(held: Any, wanted: Any) -> bool:
    """Whether two encoded values, or lists of them, are equal; numbers to 1e-6."""
    return bool(
        np.shape(held) == np.shape(wanted)
        and np.allclose(np.asarray(held, float), np.asarray(wanted, float), rtol=1e-6, atol=1e-6)
    )
