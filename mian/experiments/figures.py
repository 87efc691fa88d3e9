"""The figures of an experiment's report: for print and phones, and for readers who tell few colors apart."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mian.evaluation.truth import TRUTH_COLUMNS
from mian.experiments.global_weights import GlobalWeights
from mian.reports import palette

#: For each model a color, a line style and a marker.
STYLES = (
    (palette.BLACK, "-", "o"),
    (palette.VERMILION, "--", "s"),
    (palette.BLUE, ":", "^"),
    (palette.GREEN, "-.", "D"),
    (palette.PURPLE, "-", "v"),
    (palette.SKY_BLUE, "--", "P"),
)
#: Letters that the width of a figure has room for.
LETTERS = 70
#: What a report of a training's progress is called, and its axis.
CURVES = {"validation_logloss": "logloss, validation", "validation_auc": "AUC, validation"}

Curve = Sequence[tuple[int, Mapping[str, float]]]


def convergence(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """Figure 5 of Zhang et al. 2021: metrics on the validation split while training goes on, a mean and a band of the seeds.

    Args:
        curves: of each variant, one a seed: what was reported at which step.
    """
    figure = Figure(figsize=(7.0, 7.0), layout="constrained")
    for axes, (key, name) in zip(figure.subplots(2, 1, sharex=True), CURVES.items(), strict=True):
        for (variant, seed_curves), (color, dashes, marker) in zip(curves.items(), STYLES, strict=False):
            table = pd.DataFrame([{step: values[key] for step, values in curve if key in values} for curve in seed_curves])
            # as far as all seeds went; some end early
            table = table.reindex(columns=sorted(table.columns)).dropna(axis="columns")
            mean = table.mean()
            axes.plot(mean.index, mean, color=color, linestyle=dashes, marker=marker, markersize=5, label=variant)
            if len(table) > 1:
                axes.fill_between(mean.index, table.min(), table.max(), color=color, alpha=0.15, linewidth=0)
        axes.set_ylabel(name)
        axes.grid(color="0.9")
    axes.set_xlabel("steps of training")
    figure.axes[0].legend(loc="best")
    return figure


def attention_cases(weights: GlobalWeights) -> Figure:
    """Figure 6 of Zhang et al. 2021: the weights of Eq. 15 for drawn samples, and beside them their mean over the test split."""
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    cases, mean = figure.subplots(1, 2, width_ratios=(len(weights.cases), 1.4), sharey=True)
    # even weights lie in the middle of the colors, or below
    top = float(max(weights.cases.max(), weights.mean.max(), 2 / len(weights.parts)))
    for axes, values in ((cases, weights.cases.T), (mean, weights.mean[:, None])):
        image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0.0, vmax=top)
        axes.spines[:].set_visible(False)
        axes.set_yticks(range(len(weights.parts)), weights.parts)
    cases.set_xticks(range(len(weights.cases)), [str(number + 1) for number in range(len(weights.cases))])
    cases.set_xlabel("case")
    cases.set_ylabel("part of Eq. 14", labelpad=12)
    mean.set_xticks([0], ["mean"])
    mean.tick_params(axis="y", length=0)
    for row, value in enumerate(weights.mean):
        color = "black" if value > 0.6 * top else "white"
        mean.text(0, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=9)
    figure.colorbar(image, ax=[cases, mean], label="weight, softmax of Eq. 15")
    return figure


def differences(table: pd.DataFrame, against: str) -> Figure:
    """AUC of each variant less that of one, with the interval over users drawn anew."""
    models = table.drop(index=list(TRUTH_COLUMNS), errors="ignore")
    figure = Figure(figsize=(7.0, 0.38 * len(models) + 1.3), layout="constrained")
    axes: Axes = figure.subplots()
    center = models["auc"] - models.loc[against, "auc"]
    places = np.arange(len(models))[::-1]
    spread = [(center - models["low"]).clip(lower=0), (models["high"] - center).clip(lower=0)]
    axes.errorbar(center, places, xerr=spread, fmt="o", color=palette.BLUE, ecolor="0.4", capsize=3, markersize=6)
    axes.axvline(0.0, color="0.4", linestyle="--", linewidth=1)
    axes.set_yticks(places, models.index)
    axes.set_xlabel(f"AUC less that of {against}, test split")
    axes.set_ylabel("model")
    axes.grid(axis="x", color="0.9")
    return figure


def slices(table: pd.DataFrame, title: str, variants: Sequence[str]) -> Figure:
    """AUC of some variants within parts of the test split."""
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    axes: Axes = figure.subplots()
    models = [variant for variant in (*variants, *TRUTH_COLUMNS) if variant in table]
    places = np.arange(len(table))
    for number, variant in enumerate(models):
        color, _, marker = STYLES[number % len(STYLES)]
        shift = 0.12 * (number - (len(models) - 1) / 2)
        axes.plot(places + shift, table[variant], linestyle="none", color=color, marker=marker, markersize=8, label=variant)
    width = LETTERS // len(table)
    parts = [textwrap.wrap(str(part), width) for part in table.index]
    counts = [textwrap.wrap(f"{rows:,} rows", width) for rows in table["rows"]]
    height = max(map(len, parts))
    labels = [[*part, *[""] * (height - len(part)), *count] for part, count in zip(parts, counts, strict=True)]
    axes.set_xticks(places, ["\n".join(label) for label in labels])
    axes.set_xlim(-0.5, len(table) - 0.5)
    axes.set_xlabel(title)
    axes.set_ylabel("AUC, test split")
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside upper center", ncols=3)
    return figure
