"""The picture of an explanation; apart from it, so that a served model needs no plotting library."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mian.serving.explanation import MODULES, shown

#: Of weights from 0 up, and below: Okabe and Ito's blue and vermilion.
COLORS = ("#0072B2", "#D55E00")


def plot_explanation(table: pd.DataFrame, probability: float) -> Figure:
    """Bars of the weights, a panel a module.

    Args:
        table: of :func:`mian.serving.explanation.explain`.
        probability: of a click, for the title.
    """
    modules = [(name, what) for name, what in MODULES.values() if name in set(table["module"])]
    heights = [max(1, int((table["module"] == name).sum())) for name, _ in modules]
    figure = Figure(figsize=(8.0, 0.27 * sum(heights) + 0.75 * len(modules) + 0.5), layout="constrained")
    panels = figure.subplots(len(modules), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, what) in zip(panels, modules, strict=True):
        part = table[table["module"] == name]
        labels = [
            f"{line.name_} {shown(line.value)}".strip()[:60] for line in part.rename(columns={"name": "name_"}).itertuples()
        ]
        places = np.arange(len(part))[::-1]
        axes.barh(places, part["weight"], color=[COLORS[int(weight < 0)] for weight in part["weight"]])
        axes.set_yticks(places, labels, fontsize=8)
        axes.set_xlabel(f"weight of {name}")
        axes.set_title(f"{name}: {what}", loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvline(0.0, color="0.4", linewidth=0.8)
    figure.suptitle(f"probability of a click: {probability:.4f}", fontsize=11)
    return figure
