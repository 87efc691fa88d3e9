"""The figures of Zhang et al. 2021, Figure 3, for this data set."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from mian.contract.document import GROUPS
from pipeline.describe.charts import HALF, PALETTE, Chart, chart, figure, grid, percent_axis, split_colors
from pipeline.describe.dataset_summary import DatasetSummary
from pipeline.describe.formatting import percent

#: What the paper calls old: "more than 50% of user behavior occurred 30 days ago".
OLD_DAYS = 30


def seen_chart(description: DatasetSummary) -> Chart | None:
    """(a) How often the candidate is in the history, by split."""
    splits = [(split.name, split.seen) for split in description.splits if split.seen is not None]
    if not splits or not description.contract.group("behaviors"):
        return None
    colors = split_colors(split.name for split in description.splits)
    drawn = figure(HALF, 2.9)
    axes = drawn.subplots()
    shares = [share for _, share in splits if share is not None]
    bars = axes.bar([name for name, _ in splits], shares, width=0.55, color=[colors[name] for name, _ in splits])
    axes.bar_label(bars, [percent(share, 1 if share > 0.01 else 2) for share in shares], padding=2)
    axes.set(ylabel="share of samples", ylim=(0, 1.2 * max(shares) or 0.01))
    axes.margins(x=0.25)
    percent_axis(axes.yaxis)
    grid(axes)
    return chart(
        "(a) Candidate is in the history",
        "How often the shown item is among the behaviors of its sample. Where it seldom is, the history alone says little of it.",
        drawn,
    )


def length_chart(description: DatasetSummary) -> Chart | None:
    """(b) How many behaviors a sample has, by split."""
    known = [(split, split.counts) for split in description.splits if split.counts is not None and split.rows]
    if not known or not description.contract.group("behaviors"):
        return None
    colors = split_colors(split.name for split in description.splits)
    drawn = figure(HALF, 2.9)
    axes = drawn.subplots()
    for split, counts in known:
        lengths = np.asarray(counts["history_length"], np.float64)
        axes.stairs(
            lengths / lengths.sum(),
            np.arange(len(lengths) + 1) - 0.5,
            color=colors[split.name],
            linewidth=1.6,
            label=split.name,
        )
    axes.set(xlabel="behaviors in the history", ylabel="share of samples")
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(axes.yaxis)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    grid(axes)
    return chart(
        "(b) Number of behaviors",
        f"The last bar, {description.contract.history.length}, holds all that have so many or more: columns are no longer than that.",
        drawn,
    )


def age_chart(description: DatasetSummary) -> Chart | None:
    """(b) How old behaviors are, by split."""
    known = [(s.name, np.asarray(s.counts["behavior_age_days"], np.float64)) for s in description.splits if s.counts is not None]
    known = [(name, ages) for name, ages in known if ages.sum()]
    if not known:
        return None
    colors = split_colors(split.name for split in description.splits)
    drawn = figure(HALF, 2.9)
    axes = drawn.subplots()
    last = max(int(np.flatnonzero(ages)[-1]) for _, ages in known) + 1
    for name, ages in known:
        drawn_ages = ages[:last]
        axes.stairs(drawn_ages / drawn_ages.sum(), np.arange(len(drawn_ages) + 1), color=colors[name], linewidth=1.6, label=name)
    axes.set(xlabel="age at the impression, days", ylabel="share of behaviors")
    axes.set_ylim(0, None)
    percent_axis(axes.yaxis)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    grid(axes)
    return chart("(b) Age of behaviors", age_caption(description), drawn)


def age_caption(description: DatasetSummary) -> str:
    """The median age of a behavior, and what share is old, as far as the window lets one see."""
    ages = description.age_days
    median = int(np.searchsorted(ages.cumsum(), ages.sum() / 2))
    text = f"Of behaviors in histories, counted in each sample that has them. Half are younger than {median + 1} days"
    text = text.replace("than 1 days", "than a day")
    if description.contract.history.days > OLD_DAYS:
        return (
            f"{text}; {percent(ages[OLD_DAYS:].sum() / ages.sum())} are older than {OLD_DAYS} days (the paper: more than half)."
        )
    return f"{text}. The paper finds more than half older than {OLD_DAYS} days; this history ends at {description.contract.history.days}."


def attributes_chart(description: DatasetSummary) -> Chart:
    """(c) How many attributes each group has."""
    numbers = [len(description.contract.group(group)) for group in GROUPS]
    drawn = figure(HALF, 2.9)
    axes = drawn.subplots()
    bars = axes.bar(GROUPS, numbers, width=0.55, color=PALETTE[0])
    axes.bar_label(bars, padding=2)
    axes.set(ylabel="fields", ylim=(0, 1.2 * max(numbers)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    grid(axes)
    return chart(
        "(c) Attributes a group", "Fields of the candidate item, of each behavior, of the user and of the context.", drawn
    )
