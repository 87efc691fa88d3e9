"""The picture of an explanation; apart from it, so that a served model needs no plotting library."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mian.reports import palette
from mian.serving.explanation import MODULES, shown

#: Of weights from 0 up, and below.
COLORS = (palette.BLUE, palette.VERMILION)
#: Letters of a label, and of a line of a panel's title.
LONGEST_LABEL, LONGEST_TITLE = 60, 48


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
        labels = [_label(label, value) for label, value in zip(part["name"], part["value"], strict=True)]
        places = np.arange(len(part))[::-1]
        axes.barh(places, part["weight"], color=[COLORS[int(weight < 0)] for weight in part["weight"]])
        axes.set_yticks(places, labels, fontsize=8)
        axes.set_xlabel(f"weight of {name}")
        axes.set_ylim(-0.7, len(part) - 0.3)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(textwrap.fill(f"{name}: {what}{_fields(part)}", LONGEST_TITLE), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvline(0.0, color="0.4", linewidth=0.8)
    figure.suptitle(f"probability of a click: {probability:.4f}", fontsize=11)
    return figure


def _label(name: str, value: Any) -> str:
    """What is weighed, on one line: of a behavior its values, whose fields the panel's title names."""
    text = ", ".join(shown(part) or "unknown" for part in value.values()) if isinstance(value, dict) else shown(value)
    label = f"{name} {text}".strip()
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _fields(part: pd.DataFrame) -> str:
    """The fields of behaviors, in the order in which labels have their values."""
    value = part["value"].iloc[0]
    return f" ({', '.join(value)})" if isinstance(value, dict) else ""
