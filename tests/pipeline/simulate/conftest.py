from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipeline.config.simulation import SimulateConfig
from pipeline.simulate.write import simulate_logs


class Logs(NamedTuple):
    """What a reader of the logs sees, and nothing more."""

    config: SimulateConfig
    impressions: pd.DataFrame
    clicks: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame
    truth: pd.DataFrame

    def labels(self) -> pd.DataFrame:
        """One row a distinct impression: its true probability, and whether it was clicked within 24 hours."""
        shown = self.impressions.drop_duplicates("impression_id")[["impression_id", "event_time"]]
        clicks = self.clicks.drop_duplicates("impression_id")[["impression_id", "event_time"]]
        both = shown.merge(clicks, on="impression_id", how="left", suffixes=("", "_click"))
        both["label"] = both["event_time_click"] - both["event_time"] <= dt.timedelta(hours=24)
        return both.merge(self.truth, on="impression_id", validate="one_to_one")


@pytest.fixture(scope="session")
def logs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """50 thousand impressions, written and read back."""
    folder: Path = tmp_path_factory.mktemp("world") / "logs"
    config = SimulateConfig(
        output=str(folder), impressions=50_000, users=1_100, first_day=dt.date(2025, 12, 20), last_day=dt.date(2026, 1, 23)
    )
    simulate_logs(spark, config)
    frames = [pd.read_parquet(folder / name) for name in Logs._fields[1:]]
    return Logs(config, *(frame.astype({"day": str}) if "day" in frame else frame for frame in frames))
