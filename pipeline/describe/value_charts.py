"""Label rate by value, for each column of the user and the context."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mian.contract import Field
from pipeline.describe.charts import PALETTE, THIRD, Chart, chart, figure, grid, label, percent_axis
from pipeline.describe.dataset_summary import DatasetSummary
from pipeline.describe.formatting import percent
from pipeline.describe.intervals import rate_interval
from pipeline.encoding.statistics import NAMED_BINS

#: Values with fewer samples do not say how high the scale is.
ENOUGH_SAMPLES = 200
FEW_COLOR = "#A9CBE6"
#: So many letters of tick labels stand side by side.
ROW_LETTERS = 33
#: Of all samples the share of values that have no bin of their own.
MOST_OTHERS = 0.5
UNKNOWN, OTHERS = "unknown", "others"


@dataclass(frozen=True)
class ValueRate:
    """A value of a column, or a range of numbers: its samples, and its label rate before negatives were left out, with bounds."""

    value: str
    rows: int
    rate: float
    low: float
    high: float


def value_rates(description: DatasetSummary, field: Field) -> list[ValueRate]:
    """Label rates of a column's values over all days: numbers in their order, text by frequency; unknown and others last.

    Empty where the values are not known by name, as in a hashed vocabulary, where there is one at most, or where those
    with a bin of their own are a small part, as of user ids.
    """
    parts = [
        (day.day.negatives_kept, day.counts["columns"].get(field.column)) for day in description.days if day.counts is not None
    ]
    parts = [(kept, column) for kept, column in parts if column is not None]
    names = bin_names(description, field, max((len(column["counts"]) for _, column in parts), default=0))
    if names is None:
        return []
    positives, negatives, impressions = (np.zeros(len(names)) for _ in range(3))
    for kept, column in parts:
        clicked = _filled(column["positives"], len(names))
        others = _filled(column["counts"], len(names)) - clicked
        positives, negatives, impressions = positives + clicked, negatives + others, impressions + others / kept
    rates = []
    for name, p, n, s in zip(names, positives.tolist(), negatives.tolist(), impressions.tolist(), strict=True):
        if p + n:
            low, high = rate_interval(p, n, n / s if s else 1.0)
            rates.append(ValueRate(name, round(p + n), p / (p + s), low, high))
    ordered = _ordered(rates) if field.is_text else rates
    unnamed = sum(rate.rows for rate in ordered if rate.value == OTHERS)
    return ordered if len(ordered) > 1 and unnamed <= MOST_OTHERS * sum(rate.rows for rate in ordered) else []


def bin_names(description: DatasetSummary, field: Field, bins: int) -> list[str] | None:
    """What is in each bin of a column's statistics; None where nobody can say."""
    reference = description.contract.reference.get(field.column)
    if field.vocabulary is None:
        edges = [_raw(field, edge) for edge in (reference.edges or ())] if reference is not None else []
        return _ranges(edges) if len(edges) + 1 == bins else None
    vocabulary = description.contract.vocabulary(field.vocabulary)
    if vocabulary.kind == "hash":
        return None
    if vocabulary.kind == "buckets":
        names = [UNKNOWN, *_ranges(vocabulary.edges or ())]
    else:
        names = [UNKNOWN, *description.values[vocabulary.name]]
    return [*names[: NAMED_BINS + 1], OTHERS] if bins == NAMED_BINS + 2 else names[:bins] if len(names) >= bins else None


def value_charts(description: DatasetSummary) -> tuple[list[Chart], list[Chart]]:
    """Charts of positions, and of all other columns of the user and the context; all with one scale of rates."""
    fields = [field for group in ("context", "user") for field in description.contract.fields if field.group == group]
    found = [(field, rates) for field in fields if (rates := value_rates(description, field))]
    top = max((r.high for _, rates in found for r in rates if r.rows >= ENOUGH_SAMPLES), default=1.0)
    overall = description.positives / sum(_shown(description))
    charts = [(field, _chart(field, rates, min(1.0, 1.1 * top), overall)) for field, rates in found]
    positions = [drawn for field, drawn in charts if "position" in field.name.lower()]
    return positions, [drawn for field, drawn in charts if "position" not in field.name.lower()]


def _shown(description: DatasetSummary) -> list[float]:
    return [d.day.positives + (d.day.rows - d.day.positives) / d.day.negatives_kept for d in description.days]


def _chart(field: Field, rates: Sequence[ValueRate], top: float, overall: float) -> Chart:
    drawn = figure(THIRD, 2.5)
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    places = np.arange(len(rates))
    upper.axhline(overall, color="0.4", linestyle="--", linewidth=1, zorder=0)
    colors = [PALETTE[0] if r.rows >= ENOUGH_SAMPLES else FEW_COLOR for r in rates]
    upper.vlines(places, [r.low for r in rates], [r.high for r in rates], color=colors, linewidth=1.2)
    upper.scatter(places, [r.rate for r in rates], s=16, color=colors, zorder=3)
    upper.set(ylabel="label 1", ylim=(0, top))
    percent_axis(upper.yaxis)
    rows = sum(r.rows for r in rates)
    lower.bar(places, [r.rows / rows for r in rates], width=0.8, color="0.65", linewidth=0)
    lower.set(ylabel="samples", xlim=(-0.6, len(rates) - 0.4))
    percent_axis(lower.yaxis)
    names = [label(r.value) for r in rates]
    room = ROW_LETTERS / len(names)
    crowded = len(names) > 12 or any((len(a) + len(b)) / 2 > room for a, b in itertools.pairwise(names))
    lower.set_xticks(places, names, rotation=90 if crowded else 0, fontsize=8)
    lower.tick_params(axis="x", length=0)
    for axes in (upper, lower):
        grid(axes)
    known = [rate for rate in rates if rate.rows >= ENOUGH_SAMPLES] or rates
    low, high = min(known, key=lambda r: r.rate), max(known, key=lambda r: r.rate)
    if low.rate == high.rate:
        return chart(field.column, f"{percent(low.rate)} for each value", drawn)
    return chart(field.column, f"{percent(low.rate)} ({low.value}) to {percent(high.rate)} ({high.value})", drawn)


def _filled(counts: Sequence[int], bins: int) -> npt.NDArray[np.float64]:
    """Counts with zeros for bins that came when the vocabulary was extended."""
    row = np.zeros(bins)
    row[: len(counts)] = counts
    return row


def _raw(field: Field, encoded: float) -> float:
    """An encoded number as it was in the log."""
    assert field.transform is not None
    value = encoded * field.transform.std + field.transform.mean
    return math.copysign(math.expm1(abs(value)), value) if field.transform.kind == "log" else value


def _ranges(edges: Sequence[float]) -> list[str]:
    impressions = [f"{edge:.3g}" for edge in edges]
    if not impressions:
        return ["any number"]
    return [f"< {impressions[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(impressions)), f"≥ {impressions[-1]}"]


def _ordered(rates: Sequence[ValueRate]) -> list[ValueRate]:
    named = [rate for rate in rates if rate.value not in (UNKNOWN, OTHERS)]
    last = [rate for name in (OTHERS, UNKNOWN) for rate in rates if rate.value == name]
    numbers = [_number(rate.value) for rate in named]
    if all(number is not None for number in numbers):
        named = [rate for _, rate in sorted(zip(numbers, named, strict=True), key=lambda pair: pair[0] or 0.0)]
    return [*named, *last]


def _number(text: str) -> float | None:
    """The number that a text begins with: ``25-34`` and ``65+`` have an order too."""
    found = re.match(r"[-+]?\d+(?:\.\d+)?", text)
    return float(found[0]) if found is not None else None
