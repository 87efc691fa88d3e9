"""What is known of a finished world: its click-through rate, and the metrics that no model can beat but by chance."""

from __future__ import annotations

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
    """AUC of the true probabilities against the labels, ties in bins of 1e-5 counted as half."""
    best_logloss: float
    """Mean logloss of the true probabilities."""

    def table(self) -> str:
        """Some lines for a person."""
        lines = [f"  {name:<12} {count:>14,} rows" for name, count in self.rows.items()]
        metrics = f"  click-through rate {self.ctr:.4f}; best possible AUC {self.best_auc:.4f}, logloss {self.best_logloss:.4f}"
        return "\n".join([*lines, metrics])


def summarize(simulated: DataFrame, other_rows: dict[str, int]) -> Summary:
    """One pass over simulated impressions and clicks.

    Args:
        simulated: columns ``log``, ``probability`` and ``label``; the last two null but for one row of each impression.
        other_rows: rows of the logs that these do not make up.
    """
    p, label = F.col("probability"), F.col("label")
    groups: pd.DataFrame = (
        simulated.groupBy("log", F.floor(p * PROBABILITY_BINS).alias("bin"))
        .agg(
            F.count("*").alias("rows"),
            F.sum(label).alias("positives"),
            F.sum(-F.log(F.when(label == 1, p).otherwise(1.0 - p))).alias("loss"),
        )
        .toPandas()
    )
    rows = groups.groupby("log")["rows"].sum()
    bins = groups.dropna(subset="bin").sort_values("bin")
    impressions = bins["rows"].to_numpy(np.float64)
    positives = bins["positives"].to_numpy(np.float64)
    negatives = impressions - positives
    below = np.cumsum(negatives) - negatives
    pairs = positives.sum() * negatives.sum()
    auc = (positives * (below + negatives / 2)).sum() / pairs if pairs else 0.5
    return Summary(
        rows={
            "impressions": int(rows.get("impressions", 0)),
            "clicks": int(rows.get("clicks", 0)),
            **other_rows,
            "truth": int(impressions.sum()),
        },
        ctr=round(float(positives.sum() / impressions.sum()), 6),
        best_auc=round(float(auc), 6),
        best_logloss=round(float(bins["loss"].sum() / impressions.sum()), 6),
    )
