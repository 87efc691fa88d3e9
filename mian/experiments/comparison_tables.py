"""The tables of an experiment's report, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import ttest_rel

from mian.evaluation.truth import ATTAINABLE
from mian.experiments.held_out import HeldOutRows, test_metrics
from mian.experiments.resampling import difference_of_auc
from mian.metrics import UndefinedMetricError, auc

Probabilities = Mapping[str, Sequence[npt.NDArray[np.float32]]]
"""Of each variant, an array a seed."""

METRICS = ("auc", "logloss", "gauc")
#: Bounds of behavior counts.
COUNTS = ((0, 0), (1, 5), (6, 15), (16, 30), (31, math.inf))
#: Seconds since the latest behavior; powers of two, as time gaps are.
GAPS = ((0.0, 2.0**16, "under 18 hours"), (2.0**16, 2.0**18, "18 hours to 3 days"), (2.0**18, 2.0**20, "3 to 12 days"))
LONGEST_GAP = (2.0**20, math.inf, "12 days and more")


def metrics_by_seed(rows: HeldOutRows, probabilities: Probabilities) -> dict[str, pd.DataFrame]:
    """Metrics of each variant: a frame with a row a seed."""
    return {variant: pd.DataFrame([test_metrics(rows, p) for p in arrays]) for variant, arrays in probabilities.items()}


def best_peer(metrics: Mapping[str, pd.DataFrame], variants: Sequence[str], proposed: Sequence[str]) -> str:
    """The variant with the highest mean AUC among those that are not proposed."""
    return max(
        (variant for variant in variants if variant not in proposed), key=lambda variant: float(metrics[variant]["auc"].mean())
    )


def comparison(
    rows: HeldOutRows,
    metrics: Mapping[str, pd.DataFrame],
    probabilities: Probabilities,
    variants: Sequence[str],
    against: str,
) -> pd.DataFrame:
    """One row per model: means and standard deviations over the seeds, and what separates it from one of them.

    Args:
        rows: of the test split.
        metrics: of every variant.
        probabilities: of every variant.
        variants: which, in order.
        against: the variant that all others are held against.

    Returns:
        Columns: ``auc``, ``logloss``, ``gauc``, each with its ``_sd`` (NaN with one seed); ``auc_relative`` and ``logloss_relative``, the
        change of the mean over that of ``against``; ``p``, of a paired t-test of AUC over the seeds (NaN with one); ``low`` and ``high``,
        the 95 % interval of the difference of AUC over users drawn anew; where the attainable AUC is known, ``attainable_fraction``,
        ``AUC / attainable``, and ``share``, ``(AUC - 0.5) / (attainable - 0.5)``, with the attainable and the upper bound as last rows.
    """
    table = pd.DataFrame(index=pd.Index(variants, name="variant"))
    for metric in METRICS:
        table[metric] = [float(metrics[variant][metric].mean()) for variant in variants]
        table[f"{metric}_sd"] = [float(metrics[variant][metric].std(ddof=1)) for variant in variants]
    for metric in ("auc", "logloss"):
        table[f"{metric}_relative"] = table[metric] / float(metrics[against][metric].mean()) - 1.0
    table["p"] = [
        _paired(metrics[variant]["auc"], metrics[against]["auc"]) if variant != against else math.nan for variant in variants
    ]
    differences = difference_of_auc(
        rows.labels, rows.users, {variant: probabilities[variant] for variant in {*variants, against}}, against
    )
    table["low"] = [differences[variant][0] for variant in variants]
    table["high"] = [differences[variant][1] for variant in variants]
    if rows.truth is not None:
        for name, probabilities_of_world in rows.truth.items():
            known = test_metrics(rows, probabilities_of_world)
            table.loc[name, list(METRICS)] = [known[metric] for metric in METRICS]
        attainable = table.loc[ATTAINABLE, "auc"]
        table["attainable_fraction"] = table["auc"] / attainable
        table["share"] = (table["auc"] - 0.5) / (attainable - 0.5)
    return table


def slices(rows: HeldOutRows, probabilities: Probabilities, variants: Sequence[str]) -> dict[str, pd.DataFrame]:
    """AUC within parts of the test split, the mean over the seeds.

    Returns:
        A frame for each way to part the rows that the samples allow: one row per part, with ``rows``, ``rate`` (share of clicks), and the
        AUC of each variant; NaN where a part has one class alone.
    """
    parts: dict[str, dict[str, npt.NDArray[np.bool_]]] = {}
    if rows.lengths is not None:
        lengths = rows.lengths
        bounds = [(low, high) for low, high in COUNTS if low <= lengths.max(initial=0)]
        parts["behaviors in the history"] = {_span(low, high): (lengths >= low) & (lengths <= high) for low, high in bounds}
    if rows.gaps is not None:
        gaps = rows.gaps
        by_gap = {name: (gaps >= low) & (gaps < high) for low, high, name in (*GAPS, LONGEST_GAP)}
        parts["time since the latest behavior"] = by_gap | {"no behavior": np.isnan(gaps)}
    if rows.seen is not None and rows.known is not None and rows.lengths is not None:
        some = rows.lengths > 0
        parts["candidate and history"] = {
            "candidate is in the history": rows.seen,
            "candidate is not": ~rows.seen & rows.known & some,
            "candidate is unknown": ~rows.known & some,
            "no history": ~some,
        }
    return {name: _sliced(rows, probabilities, variants, by_part) for name, by_part in parts.items()}


def _sliced(
    rows: HeldOutRows, probabilities: Probabilities, variants: Sequence[str], parts: Mapping[str, npt.NDArray[np.bool_]]
) -> pd.DataFrame:
    table = pd.DataFrame(index=pd.Index(parts, name="part"))
    table["rows"] = [int(where.sum()) for where in parts.values()]
    table["rate"] = [float(rows.labels[where].mean()) if where.any() else math.nan for where in parts.values()]
    for variant in variants:
        table[variant] = [_mean_auc(rows, probabilities[variant], where) for where in parts.values()]
    if rows.truth is not None:
        for name, known in rows.truth.items():
            table[name] = [_mean_auc(rows, [known], where) for where in parts.values()]
    return table[table["rows"] > 0]


def _mean_auc(rows: HeldOutRows, arrays: Sequence[npt.ArrayLike], where: npt.NDArray[np.bool_]) -> float:
    try:
        return float(np.mean([auc(rows.labels[where], np.asarray(p)[where]) for p in arrays]))
    except UndefinedMetricError:  # one class alone
        return math.nan


def _paired(mine: pd.Series, theirs: pd.Series) -> float:
    """Two-sided p of a paired t-test; NaN where there are fewer than two pairs."""
    return float(ttest_rel(mine, theirs).pvalue) if len(mine) > 1 else math.nan


def _span(low: float, high: float) -> str:
    if low == high:
        return f"{low}"
    return f"{low} and more" if math.isinf(high) else f"{low} to {high}"
