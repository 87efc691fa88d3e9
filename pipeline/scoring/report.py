"""What ``jobs/score.py`` prints."""

from __future__ import annotations

from pipeline.dataset.schedule import spans
from pipeline.scoring.run import ScoringReport


def report_text(output: str, report: ScoringReport) -> str:
    """How many days were scored, by which model, and what the folder holds now."""
    lines = [f"{output}: {len(report.scored)} days scored, {len(report.kept)} finished before and unchanged"]
    scored = [day for day in report.manifest.days if day.day in report.scored]
    if scored:
        rows = sum(day.rows for day in scored)
        lines.append(f"  {rows:,} candidates scored by {scored[0].scored_by.model_version}: {spans(report.scored)}")
    rejected = sum(sum(day.quarantined.values()) for day in report.manifest.days)
    if rejected:
        lines.append(f"  {rejected:,} rows broke a rule and lie in day=.../_quarantine files, with the reason")
    return "\n".join(lines)
