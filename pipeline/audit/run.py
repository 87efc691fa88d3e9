"""The whole audit of a data set."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from mian.contract import Contract
from mian.contract.audit_verdict import AUDITS
from pipeline.audit.compare import Comparison
from pipeline.audit.draw import collect, draw
from pipeline.audit.findings import Report
from pipeline.audit.indicators import collect_indicators
from pipeline.audit.leaks import find_leaks
from pipeline.audit.published_samples import Published, compare_contract, read_published
from pipeline.audit.raw_fields import Members, members
from pipeline.audit.recorded import scan_recorded, with_recorded
from pipeline.audit.scan_histories import CHECKED, scan_histories
from pipeline.audit.scan_rows import scan_rows
from pipeline.audit.scan_vocabularies import VocabularyScan
from pipeline.audit.tables import Tables, read_tables
from pipeline.audit.verdicts import record_verdicts
from pipeline.config import DataConfig
from pipeline.dataset.fingerprints import settings_fingerprint
from pipeline.io.storage import Storage
from pipeline.logs.errors import refuse_unreachable


def audit(spark: SparkSession, config: DataConfig, rows: int = 200, seed: int = 0, is_recorded: bool = True) -> Report:
    """Audit a finished data set against the raw logs and the rules of a configuration.

    Args:
        spark: the session.
        config: the logs, the rules, and where the samples are.
        rows: how many samples, and how many impressions of the log, are drawn and recomputed.
        seed: of the draw.
        is_recorded: whether the verdict on each day is written beside the samples, see :mod:`pipeline.audit.verdicts`.

    Raises:
        AuditError: the data set cannot be audited.
        ContractError: its contract cannot be read.
        LogError: a log cannot be read.
    """
    report = Report()
    refuse_unreachable(spark, config)
    published, findings = read_published(spark, config.samples)
    report.findings += findings
    contract = published.contract
    files = sum(len(day.named_files) for day in contract.days)
    report.checked.append(f"checksums: {files:,} files of {len(contract.days)} days")
    notes, findings = compare_contract(config, contract, settings_fingerprint(config))
    report.notes += notes
    report.findings += findings
    tables = with_recorded(read_tables(spark, config, contract), config)
    fields = members(config, contract, tables)
    drawn = draw(published, tables, config, fields, rows, seed)
    facts = collect(tables, config, fields, drawn)
    report.findings += Comparison(spark, published, config, tables, fields, drawn, facts).findings()
    report.checked.append(
        f"recomputed: {len(drawn):,} rows, drawn from the samples and from the log with seed {seed}, every column"
    )
    unknown = sum(row.negative and row.item is None for row in drawn)
    if unknown:
        report.notes.append(f"{unknown} drawn negatives have an item without an id: what depends on the item was not compared")
    _scan(report, published, tables, config, fields)
    _look_for_leaks(report, published, config)
    open_days = {str(day.day) for day in contract.days if not day.final} & {finding.day for finding in report.found("label")}
    if open_days:
        days = ", ".join(sorted(open_days))
        report.notes.append(f"labels of {days} were not final when they were built; build again where clicks came since")
    if is_recorded:
        _record(spark, config, contract, report)
    return report


def _record(spark: SparkSession, config: DataConfig, contract: Contract, report: Report) -> None:
    try:
        record_verdicts(Storage(spark), config.samples, contract, report, settings_fingerprint(config))
    except (OSError, Py4JJavaError) as error:
        why = " ".join(str(error).split())[:300]
        report.notes.append(
            f"the verdict could not be written beside the samples ({why}): models that are trained on them count as not audited; make "
            f"{config.samples}/{AUDITS} writable and audit again"
        )


def _scan(report: Report, published: Published, tables: Tables, config: DataConfig, fields: Members) -> None:
    """Check all rows, their histories and the vocabularies."""
    contract = published.contract
    total = sum(day.rows for day in contract.days)
    report.findings += scan_rows(published, tables, config)
    report.checked.append(f"impressions, times and labels: {total:,} samples")
    if config.recorded and fields.behaviors:
        report.findings += scan_recorded(published, tables, config)
        report.checked.append(f"lengths of recorded histories: {total:,} samples")
    else:
        scanned = list(scan_histories(published, tables, config, fields))
        report.findings += [finding for finding in scanned if finding.kind != CHECKED]
        behaviors = sum(finding.count for finding in scanned if finding.kind == CHECKED)
        report.checked.append(f"behaviors before their samples' cutoffs: {behaviors:,}")
    older = [day.day for day in contract.days if day.vocabulary_version != contract.vocabulary_version]
    if older:
        report.notes.append(f"behaviors of {len(older)} days from before the vocabularies were extended were drawn, not scanned")
    vocabularies = VocabularyScan(published, tables, config, fields)
    report.findings += vocabularies.findings()
    report.checked += vocabularies.checked
    report.notes += vocabularies.notes


def _look_for_leaks(report: Report, published: Published, config: DataConfig) -> None:
    """Compare what missing, unknown and short values say of the label on training days and on held-out ones."""
    lacking = collect_indicators(published, config)
    report.findings += find_leaks(lacking)
    if lacking.held_out.any() and not lacking.held_out.all():
        report.checked.append(f"what is missing, unknown or short beside the label: {len(lacking.labels):,} samples")
    else:
        report.notes.append("no training days, or no held-out ones, to compare what missing and unknown values say of the label")
