"""The page of a monitoring: whether there is an alarm, what was found, and what to do; below it the figures, day by day."""

from __future__ import annotations

import matplotlib.dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from mian.monitoring.report import ORDER, REMEDIES, DayReport, Measured, MonitoringReport, shown
from mian.reports import palette
from mian.reports.page import Section, Table, render_page
from mian.reports.pictures import Picture, png, style

#: What is drawn day by day, and how its axis is called.
DRAWN = {
    "rows": "rows",
    "click rate": "click rate",
    "calibration": "mean prediction\nover click rate",
    "AUC": "AUC",
    "logloss": "logloss",
}
MAP_KINDS = ("unscored", "unknown", "values", "scores")
#: Of the distance to the limit: an alarm begins at 1.
EDGES = (0.0, 0.25, 0.5, 1.0, 2.0, 1e9)
COLORS = ("#F4F7F9", "#D3E4F0", "#9CC7E5", "#E08A1E", "#7A1F0A")


def monitoring_page(report: MonitoringReport) -> str:
    """The page as HTML text."""
    with style():
        sections = [_what_to_do(report), _by_day(report), *_map(report)]
    return render_page(
        report.headline(),
        _intro(report),
        [*sections, *_all_measures(report)],
        _facts(report),
        f"Written by jobs/monitor.py. Samples: {report.settings.samples}. Scores: {report.scores or 'made for this report'}.",
    )


def _intro(report: MonitoringReport) -> str:
    first, last = report.reference[0].day, report.reference[-1].day
    what = "The table says what was found and what to do." if report.alarms else "Nothing is left to do."
    return (
        f"{what} Days are compared with {first} to {last}, days that the model had not seen. An alarm means: a day like these "
        f"would look so in fewer than {report.settings.false_alarm_rate:.0%} of cases."
    )


def _facts(report: MonitoringReport) -> list[tuple[str, str]]:
    days = report.looked_at
    versions = sorted({day.version for day in days if day.version is not None})
    facts = [
        (str(len(report.alarms)) if report.alarms else "none", "days with an alarm"),
        (f"{len(days)}", f"days, to {days[-1].day}"),
        (f"{sum(day.rows for day in days):,}", "rows"),
        (versions[0][:12] if len(versions) == 1 else f"{len(versions)} versions", "scored by"),
    ]
    for name in ("AUC", "calibration"):
        values = [m.value for day in days for m in day.measures if m.name == name and m.value is not None]
        if values:
            facts.append((f"{np.median(values):.3f}", f"{name}, median day"))
    return facts


def _what_to_do(report: MonitoringReport) -> Section:
    if not report.alarms:
        count = max(len(day.measures) for day in report.looked_at)
        unclear = sum(each.state == "cannot tell" for day in report.looked_at for each in day.measures)
        told = (
            f" In {unclear:,} of {sum(len(day.measures) for day in report.looked_at):,} cases there was too little to tell."
            if unclear
            else ""
        )
        return Section("What was found", f"None of {count} measures a day lies outside its limits.{told}")
    rows = tuple((str(day.day), day.alarms[0].found(), _others(day), REMEDIES[day.alarms[0].kind]) for day in report.alarms)
    text = "The first cause of each day. What a broken field does to scores and clicks comes after it."
    return Section("What was found, and what to do", text, [Table(("day", "found", "also", "what to do"), rows, texts=4)])


def _others(day: DayReport) -> str:
    names = [measured.name for measured in day.alarms[1:]]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _by_day(report: MonitoringReport) -> Section:
    drawn = {
        name: label
        for name, label in DRAWN.items()
        if any(each.name == name and each.value is not None for day in report.days for each in day.measures)
    }
    text = "Limits are wider on days with fewer users, and where the reference days differ much among each other."
    if not drawn:
        return Section("Day by day", "No day has samples.")
    figure = Figure(figsize=(8.5, 1.7 * len(drawn) + 0.6), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0], drawn.items(), strict=True):
        _series(axes, report, name)
        axes.set_ylabel(label, fontsize=9)
    _dates(axes, report)
    caption = (
        "Points are days, bars their 95 % intervals over users; gray: where a day raises no alarm; hollow points: the reference days; red "
        "crosses: alarms."
    )
    return Section("Day by day", text, pictures=[Picture("days.png", caption, png(figure))])


def _series(axes: Axes, report: MonitoringReport, name: str) -> None:
    for day in report.days:
        measured = next((each for each in day.measures if each.name == name), None)
        if measured is None or measured.value is None:
            continue
        place = _x(day)
        is_alarm = measured.state == "alarm"
        color = palette.VERMILION if is_alarm else palette.BLUE
        if measured.highest is not None and measured.lowest is not None:
            axes.fill_between([place - 0.5, place + 0.5], measured.lowest, measured.highest, color="0.9", linewidth=0, zorder=0)
        if measured.low is not None and measured.high is not None:
            axes.plot([place, place], [measured.low, measured.high], color=color, linewidth=1.5)
        face = "white" if day.is_reference else color
        axes.plot([place], [measured.value], marker="X" if is_alarm else "o", color=color, markerfacecolor=face, markersize=6)


def _dates(axes: Axes, report: MonitoringReport) -> None:
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlim(_x(report.days[0]) - 0.6, _x(report.days[-1]) + 0.6)


def _x(day: DayReport) -> float:
    """A day's place on an axis of dates."""
    return float(matplotlib.dates.date2num(day.day))  # type: ignore[no-untyped-call]


def _map(report: MonitoringReport) -> list[Section]:
    """How far each field lies from what is usual, day by day."""
    found = {
        (day.day, each.name): each
        for day in report.looked_at
        for each in day.measures
        if each.kind in MAP_KINDS and each.highest is not None
    }
    kinds = {name: each.kind for (_, name), each in found.items()}
    names = sorted(kinds, key=lambda name: (ORDER.index(kinds[name]), name))
    if not names:
        return []
    days = report.looked_at
    table = np.array([[_excess(found.get((day.day, name))) for day in days] for name in names])
    figure = Figure(figsize=(8.5, 0.22 * len(names) + 1.2), layout="constrained")
    axes: Axes = figure.subplots()
    mesh = axes.pcolormesh(
        np.arange(len(days) + 1) - 0.5,
        np.arange(len(names) + 1) - 0.5,
        table,
        cmap=ListedColormap(COLORS),
        norm=BoundaryNorm(EDGES, len(COLORS)),
        edgecolors="white",
        linewidth=0.6,
    )
    for row, column in np.argwhere(table > 1.0):
        axes.text(column, row, "X", color="white", ha="center", va="center", fontsize=8, fontweight="bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    step = max(1, len(days) // 10)
    axes.set_xticks(range(0, len(days), step), [f"{day.day:%m-%d}" for day in days[::step]], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03, aspect=14, spacing="uniform", ticks=EDGES[:-1])
    bar.ax.set_yticklabels(["0", "1/4", "1/2", "limit", "twice"], fontsize=8)
    text = "Whether the values of a field, and the scores, are spread as on the reference days (population stability index)."
    if report.left_out:
        text += f" Left out, since the calendar decides them: {', '.join(report.left_out)}."
    caption = "Each line is a measure, each column a day. Blue: usual; orange and dark red with an X: beyond the limit."
    return [Section("Fields and scores", text, pictures=[Picture("fields.png", caption, png(figure))])]


def _excess(measured: Measured | None) -> float:
    if measured is None or measured.value is None or measured.expected is None:
        return np.nan
    return min(measured.excess if measured.value > measured.expected else 0.0, 1e8)


def _all_measures(report: MonitoringReport) -> list[Section]:
    columns = ("day", "measure", "verdict", "value", "reference", "limits")
    rows = tuple(
        (
            str(day.day),
            each.name,
            each.state,
            shown(each, each.value) if each.value is not None else "undefined",
            shown(each, each.expected) if each.expected is not None else "",
            each.usual(),
        )
        for day in report.looked_at
        for each in day.measures
    )
    reference = tuple(
        (str(day.day), each.name, shown(each, each.value))
        for day in report.reference
        for each in day.measures
        if each.value is not None
    )
    return [
        Section(
            "All measures",
            "A measure that cannot tell has too little to go by; it raises no alarm.",
            [
                Table(columns, rows, folded="Days that were looked at", texts=3),
                Table(("day", "measure", "value"), reference, folded="Reference days", texts=2),
            ],
        )
    ]
