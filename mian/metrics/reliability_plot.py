"""The picture of a reliability table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from mian.reports import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: For each model a color and a marker.
STYLES = (
    (palette.BLUE, "o"),
    (palette.VERMILION, "s"),
    (palette.GREEN, "^"),
    (palette.PURPLE, "D"),
    (palette.ORANGE, "v"),
    (palette.SKY_BLUE, "P"),
)


def plot_reliability(tables: Mapping[str, pd.DataFrame], title: str = "Reliability") -> Figure:
    """Draw observed click rate over predicted probability, with 95 % intervals and the diagonal of perfect calibration.

    The figure is made without pyplot: no window opens and nothing has to be closed.

    Args:
        tables: for each model's name a table of :func:`mian.metrics.reliability`; at most six.
        title: the figure's title.

    Raises:
        ValueError: no table, or more than six.
    """
    from matplotlib.figure import Figure  # here, because it takes a second, and a training's other ranks draw nothing

    if not 1 <= len(tables) <= len(STYLES):
        raise ValueError(f"plot_reliability draws 1 to {len(STYLES)} models, got {len(tables)}")
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    top = 1.05 * max(float(table[["mean_predicted", "high"]].to_numpy().max()) for table in tables.values())
    axes.plot([0, top], [0, top], color="0.4", linestyle="--", linewidth=1, label="perfect")
    for (name, table), (color, marker) in zip(tables.items(), STYLES, strict=False):
        observed = table["observed_rate"]
        axes.errorbar(
            table["mean_predicted"],
            observed,
            yerr=[(observed - table["low"]).clip(lower=0), (table["high"] - observed).clip(lower=0)],
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1,
            capsize=2,
            label=name,
        )
    axes.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel="predicted click probability, mean of bin",
        ylabel="observed click rate (95 % Wilson interval)",
        title=title,
    )
    axes.set_aspect("equal")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend(loc="upper left")
    return figure
