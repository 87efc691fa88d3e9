"""The picture of the AUC of a model, of what it has to beat, and of the best that is possible."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mian.evaluation.offline import MODEL
from mian.evaluation.truth import ATTAINABLE, TRUTH_COLUMNS
from mian.reports import palette

RANDOM = 0.5
"""The AUC of a random order."""
OTHERS_COLOR = "0.6"


def plot_auc(table: pd.DataFrame) -> Figure:
    """Bars that begin at 0.5, so that their lengths compare as their shares of the attainable do.

    Args:
        table: Of :func:`mian.evaluation.offline.compare`.
    """
    figure = Figure(figsize=(8.5, 0.5 * len(table) + 1.0), layout="constrained")
    axes: Axes = figure.subplots()
    places = np.arange(len(table))[::-1]
    values = table["auc"].to_numpy(np.float64)
    bars = np.nan_to_num(values, nan=RANDOM)
    axes.barh(places, bars - RANDOM, left=RANDOM, height=0.6, color=[_color(name) for name in table.index])
    low, high = min(RANDOM, bars.min()), max(bars.max(), RANDOM + 0.01)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    shares = table["share"].to_numpy(np.float64) if "share" in table else np.full(len(table), math.nan)
    for place, value, share in zip(places, values, shares, strict=True):
        axes.text(high + 0.03 * (high - low), place, _text(value, share), va="center")  # the layout makes room for it
    axes.axvline(RANDOM, color="0.4", linewidth=0.8)
    if ATTAINABLE in table.index and not math.isnan(table.loc[ATTAINABLE, "auc"]):
        axes.axvline(table.loc[ATTAINABLE, "auc"], color=palette.GREEN, linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(places, list(table.index))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("AUC; 0.5 is a random order")
    return figure


def _color(name: str) -> str:
    return palette.BLUE if name == MODEL else palette.GREEN if name in TRUTH_COLUMNS else OTHERS_COLOR


def _text(auc: float, share: float) -> str:
    if math.isnan(auc):
        return "undefined"
    return f"{auc:.4f}" if math.isnan(share) else f"{auc:.4f}, {share:.1%} of attainable"
