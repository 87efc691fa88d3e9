"""Of every figure: axes have names, and no text lies on another or outside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mian.evaluation.truth import TRUTH_COLUMNS
from mian.experiments import figures
from mian.experiments.comparison_tables import COUNTS, GAPS, LONGEST_GAP
from mian.experiments.global_weights import GlobalWeights
from mian.reports.pictures import style
from tests.support.readable import assert_readable

LINES = ("xDeepFM", "DIN", "MIAN", "MIAN, wide", "MIAN-plus")
AUC = np.linspace(0.7, 0.8, len(LINES) + 1)


def by_part(parts: list[str]) -> Figure:
    table = pd.DataFrame([[*AUC, 0.81]] * len(parts), columns=[*LINES, *TRUTH_COLUMNS], index=parts)
    table["rows"] = 12_345_678
    return figures.slices(table, "what parts are by", LINES)


def by_gap() -> Figure:
    return by_part([*(name for *_, name in (*GAPS, LONGEST_GAP)), "no behavior"])


def by_count() -> Figure:
    return by_part([f"{low} to {high}" for low, high in COUNTS])


def by_candidate() -> Figure:
    return by_part(["candidate is in the history", "candidate is not", "candidate is unknown", "no history"])


def differences() -> Figure:
    table = pd.DataFrame({"auc": AUC, "low": AUC - 0.71, "high": AUC - 0.69}, index=[*LINES, "post-LN Transformer"])
    return figures.differences(table, "xDeepFM")


def convergence() -> Figure:
    curve = [(step, {"validation_logloss": 0.3 / step, "validation_auc": 0.7}) for step in (500, 1000, 1500)]
    return figures.convergence({"MIAN": [curve, curve], "post-LN Transformer": [curve], "no Transformer": [curve]})


def attention() -> Figure:
    parts = ("e_i", "e_c", "e_b", "e_u", "R_IBIM", "R_IUIM", "R_ICIM")
    even = np.full(len(parts), 1 / len(parts))
    return figures.attention_cases(GlobalWeights(parts, np.tile(even, (14, 1)), even, 0 * even, np.arange(14)))


@pytest.mark.parametrize(
    "make", [by_gap, by_count, by_candidate, differences, convergence, attention], ids=lambda make: make.__name__
)
def test_axes_have_names_and_no_text_lies_on_another(make: Callable[[], Figure]) -> None:
    with style():
        figure = make()
        assert_readable(figure, least=9)
    assert figure.axes[-1].get_xlabel() or figure.axes[0].get_xlabel()
    assert figure.axes[0].get_ylabel()


def test_a_curve_ends_where_the_first_of_its_seeds_does() -> None:
    curve = [(step, {"validation_logloss": 0.3, "validation_auc": 0.7}) for step in (500, 1000, 1500)]
    (line,) = figures.convergence({"MIAN": [curve, curve[:2]]}).axes[0].lines
    assert list(line.get_xdata()) == [500, 1000]
