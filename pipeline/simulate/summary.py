"""What is known of a finished world: its click-through rate, and the metrics that no model can beat but by chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

PROBABILITY_BINS = 100_000


class Summary(BaseModel):
    """Of all impressions of a world; labels are clicks within the attribution window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: dict[str, int]
    """Rows of each log, duplicates and orphans included."""
    ctr: float
    """Share of distinct impressions whose label is 1."""
    best_auc: float
    """Upper bound: AUC of the true probabilities against the labels, ties in bins of 1e-5 counted as half."""
    best_logloss: float
    """Mean logloss of the true probabilities."""
    attainable_auc: float = math.nan
    """AUC of the coefficients and what samples hold; NaN in the record of a world that was simulated before this was known."""
    attainable_logloss: float = math.nan

    def table(self) -> str:
        """Some lines for a person."""
        lines = [f"  {name:<12} {count:>14,} rows" for name, count in self.rows.items()]
        lines.append(f"  click-through rate {self.ctr:.4f}")
        lines.append(
            f"  upper bound (all that decides a click):              AUC {self.best_auc:.4f}, logloss {self.best_logloss:.4f}"
        )
        lines.append(
            "  attainable (the coefficients and what samples hold): "
            f"AUC {self.attainable_auc:.4f}, logloss {self.attainable_logloss:.4f}"
        )
        return "\n".join(lines)


def summarize(simulated: DataFrame, other_rows: dict[str, int]) -> Summary:
    """A pass over simulated impressions and clicks for each of the two predictors.

    Args:
        simulated: columns ``log``, ``probability``, ``attainable`` and ``label``; the last three null but for one row of each impression.
        other_rows: rows of the logs that these do not make up.
    """
    best = _binned(simulated, "probability")
    attainable = _binned(simulated.where(F.col("attainable").isNotNull()), "attainable")
    rows = best.groupby("log")["rows"].sum()
    auc, logloss, impressions, ctr = _metrics(best)
    attainable_auc, attainable_logloss, _, _ = _metrics(attainable)
    return Summary(
        rows={
            "impressions": int(rows.get("impressions", 0)),
            "clicks": int(rows.get("clicks", 0)),
            **other_rows,
            "truth": impressions,
        },
        ctr=round(ctr, 6),
        best_auc=round(auc, 6),
        best_logloss=round(logloss, 6),
        attainable_auc=round(attainable_auc, 6),
        attainable_logloss=round(attainable_logloss, 6),
    )


def _binned(simulated: DataFrame, column: str) -> pd.DataFrame:
    """Rows, positives and summed logloss by log and by bin of a predictor; the bin is null where the predictor is."""
    p, label = F.col(column), F.col("label")
    groups: pd.DataFrame = (
        simulated.groupBy("log", F.floor(p * PROBABILITY_BINS).alias("bin"))
        .agg(
            F.count("*").alias("rows"),
            F.sum(label).alias("positives"),
            F.sum(-F.log(F.when(label == 1, p).otherwise(1.0 - p))).alias("loss"),
        )
        .toPandas()
    )
    return groups


def _metrics(groups: pd.DataFrame) -> tuple[float, float, int, float]:
    """AUC, logloss, number of impressions and click-through rate of what :func:`_binned` gives."""
    bins = groups.dropna(subset="bin").sort_values("bin")
    impressions = bins["rows"].to_numpy(np.float64)
    positives = bins["positives"].to_numpy(np.float64)
    negatives = impressions - positives
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    auc = (positives * (below + negatives / 2)).sum() / pairs if pairs else 0.5
    total = impressions.sum()
    return float(auc), float(bins["loss"].sum() / total), int(total), float(positives.sum() / total)
