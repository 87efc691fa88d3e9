"""Auditing a finished data set: rows recomputed the slow obvious way, and a scan of all rows for what they could not have known.

The rules of time are written here a second time. Nothing of :mod:`pipeline.join`, :mod:`pipeline.logs.events`,
:mod:`pipeline.logs.attributes` or :mod:`pipeline.encoding.vocabularies` is used, so that a mistake there is not made here too.
"""

from pipeline.audit.findings import Finding, Report
from pipeline.audit.published_samples import AuditError
from pipeline.audit.run import audit

__all__ = ["AuditError", "Finding", "Report", "audit"]
