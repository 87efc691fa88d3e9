"""What ``jobs/build_samples.py`` prints."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from mian.contract import Contract
from pipeline.build import BuildReport, PlannedDay
from pipeline.config import DataConfig
from pipeline.dataset.folder import Generation
from pipeline.dataset.schedule import spans
from pipeline.days import days_between


def plan_text(config: DataConfig, days: Sequence[PlannedDay]) -> str:
    """Which days a build would make, and why."""
    lines = [f"{day.day}  {day.action:<7} {day.rows:>12,} samples  {day.reason}".rstrip() for day in days]
    built = [day for day in days if day.action == "build"]
    missing = [day.day for day in days if day.action == "missing"]
    asked = len(days) - len(missing)
    lines.append(
        f"{config.samples}: {len(built)} of {asked} days would be built, about {sum(day.rows for day in built):,} samples"
    )
    if missing:
        lines.append(f"{len(missing)} published days would be missing ({spans(missing)}): ask for them too, or say --drop-days")
    return "\n".join(lines)


def generations_text(config: DataConfig, kept: Sequence[Generation]) -> str:
    """The generations that are kept, a line each."""
    if not kept:
        return f"{config.samples}: no samples are published"
    lines = ["generation  revision  days       samples  vocabularies"]
    for generation in kept:
        contract = generation.contract
        rows = sum(day.rows for day in contract.days)
        lines.append(
            f"{generation.number:>10}  {contract.publication.revision:>8}  {len(contract.days):>4}  {rows:>12,}  "
            f"version {contract.vocabulary_version}, {spans(_vocabulary_days(contract))}{'  published' if generation.current else ''}"
        )
    return "\n".join(lines)


def rollback_text(config: DataConfig, contract: Contract) -> str:
    """Which generation is published again."""
    days = spans(day.day for day in contract.days)
    return f"{config.samples}: generation {contract.publication.generation} is published again, with the days {days}"


def _vocabulary_days(contract: Contract) -> list[dt.date]:
    return [day for span in contract.vocabulary_days for day in days_between(span.first, span.last)]


def build_text(config: DataConfig, report: BuildReport) -> str:
    """How many days were built, and what the data set holds now."""
    contract = report.contract
    lines = [f"{config.samples}: {len(report.built)} days built, {len(report.kept)} finished before and unchanged"]
    for name in contract.splits:
        days = [day for day in contract.days if day.day in contract.splits[name]]
        rows, positives = sum(day.rows for day in days), sum(day.positives for day in days)
        share = f", {positives / rows:.2%} positive" if rows else ""
        lines.append(f"  {name:<12} {len(days):>4} days {rows:>12,} samples{share}")
    open_days = [day.day for day in contract.days if not day.final]
    if open_days:
        lines.append(f"  not final yet, clicks may still come: {spans(open_days)}")
    rejected = sum(n for day in contract.days if day.quality is not None for n in day.quality.quarantined.values())
    if rejected:
        lines.append(
            f"  {rejected:,} rows of the logs broke a rule and lie in quarantine files; jobs/describe.py says which rules"
        )
    sizes = ", ".join(f"{vocabulary.name} {vocabulary.size:,}" for vocabulary in contract.vocabularies)
    return "\n".join([*lines, f"  vocabularies: {sizes}"])
