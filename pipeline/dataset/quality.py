"""What was found out about a day, and whether it may be published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from mian.contract import Contract, Matched, Quality
from mian.contract.stability import stability_index
from pipeline.config import DataConfig
from pipeline.encoding.statistics import Counts, before_thinning, shares, unknown_share
from pipeline.join.matches import CLICKS
from pipeline.join.outputs import DUPLICATE, UNDRAWN
from pipeline.logs.errors import LogError
from pipeline.logs.events import Events


def day_quality(
    contract: Contract, events: Events, day: dt.date, counts: Counts, rejected: Mapping[str, int], kept: float
) -> Quality:
    """Sum up a day; ``kept`` is the share of its negatives that became samples."""
    unknown, drift, clipped = {}, {}, {}
    for field in contract.fields:
        if field.column not in counts["columns"]:
            continue  # the day is empty
        unknown[field.column] = unknown_share(counts, field) or 0.0
        if not field.is_categorical and counts["columns"][field.column]["clipped"]:
            clipped[field.column] = counts["columns"][field.column]["clipped"]
        if field.column in contract.reference:
            actual = shares(before_thinning(counts["columns"][field.column], kept))
            drift[field.column] = stability_index(contract.reference[field.column].shares, actual)
    clicks = events.facts.get("log.clicks")
    return Quality(
        log_rows=events.facts["log.impressions"].rows.get(day, 0),
        quarantined={reason: n for reason, n in sorted(rejected.items()) if reason != UNDRAWN},
        undrawn=rejected.get(UNDRAWN, 0) if contract.label.negatives_per_positive is not None else None,
        clicks=clicks.rows.get(day, 0) if clicks is not None else None,
        matched={source: Matched(rows=found["rows"], found=found["found"]) for source, found in counts["matched"].items()},
        early_clicks=counts["matched"][CLICKS]["early"] if CLICKS in counts["matched"] else None,
        unknown=unknown,
        drift=drift,
        clipped=clipped,
    )


def refuse_day(config: DataConfig, day: dt.date, quality: Quality, rows: int) -> None:
    """Stop before a day is published that passes a threshold.

    Raises:
        LogError: the day, what passed which threshold, and what to do.
    """
    limits = config.quality
    duplicates = quality.quarantined.get(DUPLICATE, 0)
    others = sum(n for reason, n in quality.quarantined.items() if reason.startswith("log.impressions:")) - duplicates
    for what, number, limit, key in (
        ("of the impressions are duplicates of others", duplicates, limits.max_duplicates, "max_duplicates"),
        ("of the impressions break a rule", others, limits.max_quarantined, "max_quarantined"),
    ):
        if number > limit * quality.log_rows:
            raise LogError(
                f"{day}: {number} of {quality.log_rows} {what} ({in_words(quality.quarantined)}); quality.{key} allows {limit:g} of "
                "them. Correct the log, or allow more"
            )
    negatives = config.log.negatives
    if negatives is not None and quality.undrawn:
        asked = (quality.log_rows - duplicates - others) * (negatives.uniform + negatives.popularity)
        if quality.undrawn > limits.max_undrawn * asked:
            raise LogError(
                f"{day}: {quality.undrawn} of {asked} negatives could not be drawn: too few items had an event in the "
                f"{negatives.window_hours:g} hours before; quality.max_undrawn allows {limits.max_undrawn:g} of them. Begin the splits "
                "later than the log, enlarge log.negatives.window_hours, draw fewer, or allow more"
            )
    for found, most, what, key in (
        (quality.unknown, limits.max_unknown, "share of unknown ids or missing numbers", "max_unknown"),
        (quality.drift, limits.max_drift, "population stability index against the training days", "max_drift"),
    ):
        for column, limit in most.items():
            if found.get(column, 0.0) > limit:
                raise LogError(
                    f"{day}: {column}: {what} is {found[column]:.4f}, quality.{key} allows {limit:g}. Look for what changed in the log; "
                    "then allow more, or make or extend the vocabularies from later training days"
                )


def in_words(quarantined: Mapping[str, int]) -> str:
    """Rules that were broken, and by how many rows."""
    return ", ".join(f"{reason}: {n}" for reason, n in quarantined.items())
