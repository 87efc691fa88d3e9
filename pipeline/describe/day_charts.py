"""What changes from day to day."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.dates
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipeline.days import day_number
from pipeline.describe.charts import NO_SPLIT, PALETTE, WIDE, Chart, chart, figure, grid, percent_axis, split_colors
from pipeline.describe.dataset_summary import DatasetSummary, DayFacts
from pipeline.describe.intervals import rate_interval

dates: Any = matplotlib.dates  # it has no types

#: So many rules have a color of their own.
NAMED_RULES = 5
#: Limits of the stability index and the colors between them, each darker than the one before.
DRIFT_LIMITS = (0.0, 0.1, 0.25, 1.0)
DRIFT_COLORS = ("#EDF1F5", "#9CC7E5", "#E08A1E", "#7A1F0A")
MISSING = "0.97"
#: So few days have a tick each.
FEW_DAYS = 10
#: About the width of a letter of a split's name, as a share of the axis.
LETTER = 0.01
#: Beyond so many, marks are small and bars touch.
MANY_DAYS = 120


def days_chart(description: DatasetSummary) -> Chart:
    """Label rate and samples a day, colored by split."""
    colors = split_colors(split.name for split in description.splits)
    drawn = figure(WIDE, 4.6)
    rate, rows = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for split in (*(s.name for s in description.splits), None):
        days = [day for day in description.days if day.split == split and day.rate is not None]
        if days:
            _rates(rate, days, colors[split], split or "in no split", small=_length(description) > MANY_DAYS)
            rows.bar(
                [x(day.day.day) for day in days],
                [day.day.rows for day in days],
                width=_width(description),
                color=colors[split],
                linewidth=0,
            )
    rates = [day.rate for day in description.days if day.rate is not None]
    median = float(np.median(rates))
    rate.axhline(median, color="0.4", linestyle="--", linewidth=1, zorder=0)
    rate.annotate(
        "median", (1, median), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points", va="center", size=8
    )
    rate.set(ylabel="share of label 1", ylim=_limits(description.days))
    percent_axis(rate.yaxis)
    rate.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    rows.set(ylabel="samples")
    rows.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axes in (rate, rows):
        grid(axes)
    _dates(rows, description)
    caption = "Lines are 95 % intervals that take rows for independent. Hollow: a day that is not final."
    if description.contract.label.negatives_per_positive is not None:
        caption += " So many negatives are drawn for each positive that the rate is the same every day."
    return chart("Label rate and samples a day", caption, drawn)


def _limits(days: Sequence[DayFacts]) -> tuple[float, float]:
    """From 0 on, unless all rates lie close together; the intervals of days with very few samples may reach beyond."""
    rates = [day.rate for day in days if day.rate is not None]
    few = float(np.median([day.day.rows for day in days])) / 10
    bounds = [bound for day in days if day.day.rows and day.day.rows >= few for bound in _interval(day)]
    low, high = min(*rates, *bounds), max(*rates, *bounds)
    margin = 0.05 * (high - low)
    return (0.0 if low < high / 2 else low - margin), min(high + margin, 1.0)


def _interval(day: DayFacts) -> tuple[float, float]:
    return rate_interval(day.day.positives, day.day.rows - day.day.positives, day.day.negatives_kept)


def _rates(axes: Axes, days: Sequence[DayFacts], color: str, name: str, *, small: bool) -> None:
    bounds = [_interval(day) for day in days]
    axes.vlines(
        [x(day.day.day) for day in days], [low for low, _ in bounds], [high for _, high in bounds], color=color, linewidth=1
    )
    for final in (True, False):
        some = [day for day in days if day.day.final == final]
        face = color if final else "white"
        axes.plot(
            [x(day.day.day) for day in some],
            [day.rate or 0.0 for day in some],
            linestyle="",
            marker="o",
            markersize=2.5 if small else 4,
            color=color,
            markerfacecolor=face,
            label=name if final == any(day.day.final for day in days) else None,
        )


def broken_chart(description: DatasetSummary) -> Chart | None:
    """Rows that broke a rule, by rule and day; None where there are none."""
    totals: dict[str, int] = defaultdict(int)
    for day in description.days:
        for rule, count in (day.day.quality.quarantined if day.day.quality is not None else {}).items():
            totals[rule] += count
    if not totals:
        return None
    ranked = sorted(totals, key=lambda rule: (-totals[rule], rule))
    named, others = ranked[:NAMED_RULES], ranked[NAMED_RULES:]
    drawn = figure(WIDE, 2.4 + 0.2 * (len(named) + bool(others)))
    axes = drawn.subplots()
    days = [day for day in description.days if day.day.quality is not None]
    bottom = np.zeros(len(days))
    for place, rule in enumerate([*named, *([""] if others else [])]):
        rules = [rule] if rule else others
        heights = np.array([sum(_broken(day).get(name, 0) for name in rules) for day in days], np.float64)
        name = rule or f"{len(others)} other rules"
        color = PALETTE[place] if rule else NO_SPLIT
        axes.bar(
            [x(day.day.day) for day in days],
            heights,
            width=_width(description),
            bottom=bottom,
            color=color,
            linewidth=0,
            label=name,
        )
        bottom += heights
    axes.set(ylabel="rows")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    grid(axes)
    _dates(axes, description)
    drawn.legend(loc="outside upper left", ncols=1)
    return chart("By rule and day", "They are in the quarantine files of their day, and in no sample.", drawn)


def _broken(day: DayFacts) -> Mapping[str, int]:
    return day.day.quality.quarantined if day.day.quality is not None else {}


def unknown_chart(description: DatasetSummary) -> Chart | None:
    """A heat map of unknown shares, column by day; None where there are no unknown ids at all."""
    columns = [column.field.column for column in description.columns if column.field.is_categorical]
    table = _table(description, columns, lambda day, column: day.quality.unknown.get(column) if day.quality else None)
    some = np.nan_to_num(table).max(axis=1, initial=0.0) > 0
    if not some.any():
        return None
    broken, clean = [c for c, s in zip(columns, some, strict=True) if s], [c for c, s in zip(columns, some, strict=True) if not s]
    drawn, axes = _heat_axes(description, broken)
    mesh = _heat(axes, description, table[some], "Blues", Normalize(0, float(np.nanmax(table))))
    bar = drawn.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, aspect=12)
    percent_axis(bar.ax.yaxis)
    bar.set_label("unknown")
    left_out = f" Columns without any: {', '.join(clean)}." if clean else ""
    return chart(
        "Unknown ids and missing numbers by column and day",
        f"The share of values that have no id of their own, or are no number.{left_out}",
        drawn,
    )


def drift_chart(description: DatasetSummary) -> Chart | None:
    """A heat map of stability indices, column by day; None where nothing is known."""
    columns = [column.field.column for column in description.columns if column.drift is not None]
    table = _table(description, columns, lambda day, column: day.quality.drift.get(column) if day.quality else None)
    if not columns or np.isnan(table).all():
        return None
    drawn, axes = _heat_axes(description, columns)
    edges = [*DRIFT_LIMITS, 1e9]
    mesh = _heat(axes, description, table, ListedColormap(DRIFT_COLORS), BoundaryNorm(edges, len(DRIFT_COLORS)))
    bar = drawn.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, aspect=12, spacing="uniform", ticks=[0, 0.1, 0.25, 1])
    bar.ax.set_yticklabels(["0", "0.1", "0.25", "1"])
    bar.set_label("stability index")
    return chart(
        "Drift by column and day",
        "Population stability index of each single day against the training days. A single day has one weekday and one month, "
        "so such columns are dark here by nature; the table below has whole splits.",
        drawn,
    )


def _table(
    description: DatasetSummary, columns: Sequence[str], value: Callable[[Any, str], float | None]
) -> npt.NDArray[np.float64]:
    """Values of shape ``(columns, days)`` over all days of the calendar; NaN where nothing is known."""
    first, last = description.days[0].day.day, description.days[-1].day.day
    table = np.full((len(columns), (last - first).days + 1), np.nan)
    for day in description.days:
        for row, column in enumerate(columns):
            found = value(day.day, column)
            if found is not None:
                table[row, (day.day.day - first).days] = found
    return table


def _heat_axes(description: DatasetSummary, columns: Sequence[str]) -> tuple[Figure, Axes]:
    drawn = figure(WIDE, 1.0 + 0.2 * len(columns))
    axes = drawn.subplots()
    axes.set_yticks(np.arange(len(columns)), columns)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.set_facecolor(MISSING)
    return drawn, axes


def _heat(axes: Axes, description: DatasetSummary, table: npt.NDArray[np.float64], cmap: Any, norm: Any) -> QuadMesh:
    rows, days = table.shape
    start = x(description.days[0].day.day) - 0.5
    mesh = axes.pcolormesh(
        start + np.arange(days + 1),
        np.arange(rows + 1) - 0.5,
        table,
        cmap=cmap,
        norm=norm,
        rasterized=True,
    )
    axes.set_ylim(rows - 0.5, -0.5)
    axes.hlines(np.arange(1, rows) - 0.5, start, start + days, color="white", linewidth=0.6)
    colors = split_colors(split.name for split in description.splits)
    ends: list[float] = []  # of the names written so far, a line of them above another where splits are shorter than their names
    for split in sorted(description.splits, key=lambda split: split.span.first):
        left, right = (x(day) for day in (split.span.first, split.span.last + dt.timedelta(days=1)))
        left, right = max(left - 0.5, start), min(right - 0.5, start + days)
        if left < right:  # a strip above the map says which days are of which split
            axes.plot([left, right], [1.015, 1.015], transform=axes.get_xaxis_transform(), color=colors[split.name],
                      linewidth=4, solid_capstyle="butt", clip_on=False)  # fmt: skip
            line = next((i for i, end in enumerate(ends) if end <= left), len(ends))
            ends[line : line + 1] = [left + len(split.name) * LETTER * days]
            axes.annotate(split.name, (left, 1.03), xycoords=axes.get_xaxis_transform(), xytext=(0, 10 * line),
                          textcoords="offset points", size=8, va="bottom", annotation_clip=False)  # fmt: skip
            if left > start:
                axes.axvline(left, color="0.2", linewidth=1)
    _dates(axes, description)
    return mesh


def _dates(axes: Axes, description: DatasetSummary) -> None:
    locator = dates.AutoDateLocator(minticks=4, maxticks=12) if _length(description) > FEW_DAYS else dates.DayLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_xlabel(f"day ({description.contract.day_time_zone})")
    axes.margins(x=0.01)


def _length(description: DatasetSummary) -> int:
    return (description.days[-1].day.day - description.days[0].day.day).days + 1


def _width(description: DatasetSummary) -> float:
    """Of a day's bar."""
    return 1.0 if _length(description) > MANY_DAYS else 0.85


def x(day: dt.date) -> float:
    """A day's place on an axis of dates: in days since 1970."""
    return float(day_number(day))
