"""The verdicts of an audit, written beside the samples for those who train on them and promote models."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator

from mian.contract import Contract, Day
from mian.contract.audit_verdict import AuditVerdict, verdict_path
from pipeline.audit.findings import Report
from pipeline.io.storage import Storage


def record_verdicts(storage: Storage, samples: str, contract: Contract, report: Report, rules: str) -> None:
    """Write the verdict on each day that was audited; the last audit of a day counts.

    Args:
        storage: where the samples are.
        samples: their folder.
        contract: what was audited.
        report: what was found.
        rules: fingerprint of the configuration that the samples were held against.

    Raises:
        OSError, Py4JError: the folder cannot be written.
    """
    audited = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
    for day, findings in _by_day(contract, report):
        verdict = AuditVerdict(day=day.day, fingerprint=day.fingerprint, findings=findings, rules=rules, audited=audited)
        content = verdict.model_dump_json(indent=1) + "\n"
        storage.write(f"{samples.rstrip('/')}/{verdict_path(day.day, day.fingerprint)}", content.encode())


def _by_day(contract: Contract, report: Report) -> Iterator[tuple[Day, dict[str, int]]]:
    """Each day with its findings by kind; those that name no day of the contract concern all days."""
    days = {str(day.day): Counter[str]() for day in contract.days}
    everywhere: Counter[str] = Counter()
    for finding in report.findings:
        days.get(finding.day, everywhere)[finding.kind] += finding.count
    for day in contract.days:
        yield day, dict(days[str(day.day)] + everywhere)
